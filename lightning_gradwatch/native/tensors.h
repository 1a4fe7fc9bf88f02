/* From a Python tensor to its memory: what is there is looked at before anything is read.
 *
 * No header and no symbol of torch is used. A tensor's address, shape and type come through
 * DLPack's table of functions, which torch offers from Python as a capsule.
 */
#ifndef GRADWATCH_TENSORS_H
#define GRADWATCH_TENSORS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "dlpack.h"
#include "kernels.h"

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif

/* Work on more bytes than this lets other Python threads run meanwhile. */
#define LET_OTHERS_RUN (1 << 20)

enum { MOST_DIMENSIONS = 64 };

static const DLPackExchangeAPI *api; /* set by `bind`; torch never frees it */
static PyTypeObject *tensor_type, *parameter_type;
static PyObject *name_grad; /* set when the module is made */

/* Memory that is as it should be. */
typedef struct {
    void *data;
    size_t numel;
    Py_ssize_t place; /* in the caller's tuple */
    enum kind kind;
    int in_order; /* elements follow each other as their indices do */
} Job;

static PyObject *bind(PyObject *self, PyObject *args) {
    PyObject *capsule;
    PyTypeObject *type, *parameter;
    const DLPackExchangeAPIHeader *header;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO!O!", &capsule, &PyType_Type, &type, &PyType_Type, &parameter))
        return NULL;
    header = PyCapsule_GetPointer(capsule, DLPACK_CAPSULE);
    if (!header)
        return NULL;
    while (header && header->version.major != DLPACK_MAJOR)
        header = header->prev_api;
    if (!header || header->version.minor < DLPACK_MINOR ||
        !((const DLPackExchangeAPI *)header)->describe) {
        PyErr_SetString(PyExc_ValueError, "no DLPack table of a version that is known here");
        return NULL;
    }
    api = (const DLPackExchangeAPI *)header;
    Py_INCREF(type);
    Py_XSETREF(tensor_type, type);
    Py_INCREF(parameter);
    Py_XSETREF(parameter_type, parameter);
    Py_RETURN_NONE;
}

static PyObject *describe(PyObject *self, PyObject *tensor) {
    DLTensor t;
    PyObject *shape, *strides;
    (void)self;
    if (!api || Py_TYPE(tensor) != tensor_type) {
        PyErr_SetString(PyExc_TypeError, "not bound, or not exactly a tensor");
        return NULL;
    }
    memset(&t, 0, sizeof t);
    if (api->describe(tensor, &t))
        return NULL;
    if (t.ndim < 0 || t.ndim > MOST_DIMENSIONS || !t.shape || !t.strides) {
        PyErr_SetString(PyExc_ValueError, "no shape or strides");
        return NULL;
    }
    shape = PyTuple_New(t.ndim);
    strides = PyTuple_New(t.ndim);
    for (int i = 0; shape && strides && i < t.ndim; i++) {
        PyObject *length = PyLong_FromLongLong(t.shape[i]);
        PyObject *stride = PyLong_FromLongLong(t.strides[i]);
        if (length)
            PyTuple_SET_ITEM(shape, i, length);
        if (stride)
            PyTuple_SET_ITEM(strides, i, stride);
    }
    if (PyErr_Occurred()) {
        Py_XDECREF(shape);
        Py_XDECREF(strides);
        return NULL;
    }
    return Py_BuildValue("(NiiiiiNN)", PyLong_FromVoidPtr((char *)t.data + t.byte_offset),
                         (int)t.device.device_type, (int)t.dtype.code, (int)t.dtype.bits,
                         (int)t.dtype.lanes, (int)t.ndim, shape, strides);
}

/* Whether the elements follow each other in memory as their indices do, the last one fastest. */
static int is_in_order(const DLTensor *t) {
    int64_t expected = 1;
    for (int i = t->ndim - 1; t->strides && i >= 0; i--) {
        if (t->shape[i] == 1)
            continue;
        if (t->strides[i] != expected)
            return 0;
        expected *= t->shape[i];
    }
    return 1;
}

/* Whether the elements fill one piece of memory, each once, in whatever order of dimensions. */
static int is_dense(const DLTensor *t) {
    int order[MOST_DIMENSIONS], n = 0;
    int64_t expected = 1;
    for (int i = 0; i < t->ndim; i++) { /* by stride, the shortest first */
        int j = n;
        if (t->shape[i] == 1)
            continue;
        for (; j > 0 && t->strides[order[j - 1]] > t->strides[i]; j--)
            order[j] = order[j - 1];
        order[j] = i;
        n++;
    }
    expected = 1;
    for (int j = 0; j < n; j++) {
        if (t->strides[order[j]] != expected)
            return 0;
        expected *= t->shape[order[j]];
    }
    return 1;
}

/* Look a tensor of a known type over. Returns whether it can be read here, with `job` filled. */
static int reachable(PyObject *tensor, Py_ssize_t limit, Job *job) {
    DLTensor t;
    size_t size, numel = 1;
    memset(&t, 0, sizeof t);
    if (api->describe(tensor, &t)) {
        PyErr_Clear(); /* sparse, quantised, without storage, inside a transform, ... */
        return 0;
    }
    if (t.device.device_type != DL_CPU && t.device.device_type != DL_CUDA_HOST &&
        t.device.device_type != DL_ROCM_HOST)
        return 0;
    if (t.dtype.lanes != 1 || t.ndim < 0 || t.ndim > MOST_DIMENSIONS || (t.ndim && !t.shape))
        return 0;
    if (t.dtype.code == DL_FLOAT && t.dtype.bits == 32)
        job->kind = F32;
    else if (t.dtype.code == DL_FLOAT && t.dtype.bits == 64)
        job->kind = F64;
    else if (t.dtype.code == DL_FLOAT && t.dtype.bits == 16)
        job->kind = F16;
    else if (t.dtype.code == DL_BFLOAT && t.dtype.bits == 16)
        job->kind = BF16;
    else
        return 0;
    size = t.dtype.bits / 8;
    for (int i = 0; i < t.ndim; i++)
        numel *= (size_t)t.shape[i];
    if (numel > (size_t)limit)
        return 0;
    job->numel = numel;
    job->data = (char *)t.data + t.byte_offset;
    job->in_order = is_in_order(&t);
    if (!numel)
        return 1;
    for (size_t at = 0; at < 512 && at < numel * size; at += 64)
        PREFETCH((const char *)job->data + at);
    return t.data && (uintptr_t)job->data % size == 0 && (job->in_order || is_dense(&t));
}

/* The same for a gradient. A subclass (DTensor, FakeTensor, ...) may mean something else by its
 * numbers. */
static int readable(PyObject *tensor, Py_ssize_t limit, Job *job) {
    return Py_TYPE(tensor) == tensor_type && reachable(tensor, limit, job);
}

/* What is to be done with the tensors that can be reached, and the places of the others. */
typedef struct {
    Job *list;
    Py_ssize_t used;
    size_t bytes;
    PyObject *left;
} Jobs;

/* Look all over. Returns 0 with an exception set and nothing to free, or 1. */
static int look_over(PyObject *grads, Py_ssize_t limit, int halves, Jobs *jobs) {
    Py_ssize_t n = PyTuple_GET_SIZE(grads);
    jobs->used = 0;
    jobs->bytes = 0;
    if (!api || limit < 0) {
        PyErr_SetString(PyExc_ValueError, api ? "limit must not be negative" : "not bound yet");
        return 0;
    }
    jobs->left = PyList_New(0);
    jobs->list = PyMem_New(Job, n ? n : 1);
    if (!jobs->left || !jobs->list) {
        PyErr_NoMemory();
        goto failed;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        Job *job = jobs->list + jobs->used;
        if (readable(PyTuple_GET_ITEM(grads, i), limit, job) &&
            (halves || job->kind == F32 || job->kind == F64)) {
            job->place = i;
            jobs->bytes += job->numel * 4;
            jobs->used++;
        } else {
            PyObject *place = PyLong_FromSsize_t(i);
            int wrong = !place || PyList_Append(jobs->left, place);
            Py_XDECREF(place);
            if (wrong)
                goto failed;
        }
    }
    return 1;
failed:
    Py_CLEAR(jobs->left);
    PyMem_Free(jobs->list);
    return 0;
}

#endif
