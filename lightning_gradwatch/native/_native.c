/* Reads the norms of many gradients in one call, or scales them. Optional: see __init__.py.
 *
 * No header and no symbol of torch is used. A tensor's address, shape and type come through
 * DLPack's table of functions, which torch offers from Python as a capsule; and nothing is read
 * before type, device, dtype, alignment and layout have been looked at. Whatever does not fit is
 * left to the caller: its place is in the list that `norms` returns.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "dlpack.h"
#include "kernels.h"

/* Work on more bytes than this lets other Python threads run meanwhile. */
#define LET_OTHERS_RUN (1 << 20)

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif

/* More than all counts of writes together, so that no two kinds of change cancel. */
#define REPLACED (1LL << 32)
#define MISSING (1LL << 47)

enum { MOST_DIMENSIONS = 64 };

static const DLPackExchangeAPI *api; /* set by `bind`; torch never frees it */
static PyTypeObject *tensor_type;
static PyObject *name_grad, *name_version;

typedef struct {
    const void *data;
    size_t numel;
    Py_ssize_t place;
    enum kind kind;
} Job;

CHOSEN_AT_LOAD
static double norm_of_job(const Job *job, enum order p) {
    switch (p) { /* constants, so that each combination is compiled for itself */
    case MAXIMUM:
        switch (job->kind) {
        case F32: return norm_of(F32, job->data, job->numel, MAXIMUM);
        case F64: return norm_of(F64, job->data, job->numel, MAXIMUM);
        case F16: return norm_of(F16, job->data, job->numel, MAXIMUM);
        case BF16: return norm_of(BF16, job->data, job->numel, MAXIMUM);
        }
    case ABSOLUTE:
        switch (job->kind) {
        case F32: return norm_of(F32, job->data, job->numel, ABSOLUTE);
        case F64: return norm_of(F64, job->data, job->numel, ABSOLUTE);
        case F16: return norm_of(F16, job->data, job->numel, ABSOLUTE);
        case BF16: return norm_of(BF16, job->data, job->numel, ABSOLUTE);
        }
    case SQUARES:
        switch (job->kind) {
        case F32: return norm_of(F32, job->data, job->numel, SQUARES);
        case F64: return norm_of(F64, job->data, job->numel, SQUARES);
        case F16: return norm_of(F16, job->data, job->numel, SQUARES);
        case BF16: return norm_of(BF16, job->data, job->numel, SQUARES);
        }
    }
    return 0;
}

/* Whether the elements fill one piece of memory, each once, in whatever order of dimensions. */
static int is_dense(const DLTensor *t) {
    int order[MOST_DIMENSIONS], n = 0;
    int64_t expected = 1;
    if (!t->strides)
        return 1;
    for (int i = t->ndim - 1; i >= 0; i--) { /* C order, as most are */
        if (t->shape[i] == 1)
            continue;
        if (t->strides[i] != expected)
            break;
        expected *= t->shape[i];
        if (i == 0)
            return 1;
    }
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

/* Look a tensor over. Returns whether it can be read here, with `job` filled. */
static int readable(PyObject *tensor, Py_ssize_t limit, Job *job) {
    DLTensor t;
    size_t size, numel = 1;
    /* A subclass (DTensor, FakeTensor, ...) may mean something else by its numbers. */
    if (Py_TYPE(tensor) != tensor_type)
        return 0;
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
    job->data = (const char *)t.data + t.byte_offset;
    if (!numel)
        return 1;
    for (size_t at = 0; at < 512 && at < numel * size; at += 64)
        PREFETCH((const char *)job->data + at);
    return t.data && (uintptr_t)job->data % size == 0 && is_dense(&t);
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

static PyObject *norms(PyObject *self, PyObject *args) {
    PyObject *grads, *out, *left = NULL;
    Py_buffer row;
    Jobs jobs;
    Py_ssize_t limit;
    int p;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!Oin", &PyTuple_Type, &grads, &out, &p, &limit))
        return NULL;
    if (p < MAXIMUM || p > SQUARES) {
        PyErr_SetString(PyExc_ValueError, "p must be 0, 1 or 2");
        return NULL;
    }
    if (PyObject_GetBuffer(out, &row, PyBUF_CONTIG | PyBUF_FORMAT))
        return NULL;
    if (row.len != PyTuple_GET_SIZE(grads) * (Py_ssize_t)sizeof(double) || !row.format ||
        strcmp(row.format, "d")) {
        PyErr_SetString(PyExc_ValueError, "out must hold one float64 for each gradient");
    } else if (look_over(grads, limit, 1, &jobs)) {
        /* The tuple keeps the tensors alive, and the buffer `out`, while others run. */
        PyThreadState *others = jobs.bytes > LET_OTHERS_RUN ? PyEval_SaveThread() : NULL;
        for (Py_ssize_t k = 0; k < jobs.used; k++)
            ((double *)row.buf)[jobs.list[k].place] = norm_of_job(jobs.list + k, (enum order)p);
        if (others)
            PyEval_RestoreThread(others);
        PyMem_Free(jobs.list);
        left = jobs.left;
    }
    PyBuffer_Release(&row);
    return left;
}

CHOSEN_AT_LOAD
static void scale_job(const Job *job, double factor) {
    if (job->kind == F32) {
        float *x = (float *)job->data, f = (float)factor;
        for (size_t i = 0; i < job->numel; i++)
            x[i] *= f;
    } else {
        double *x = (double *)job->data;
        for (size_t i = 0; i < job->numel; i++)
            x[i] *= factor;
    }
}

static PyObject *scale(PyObject *self, PyObject *args) {
    PyObject *grads;
    Jobs jobs;
    Py_ssize_t limit;
    double factor;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!dn", &PyTuple_Type, &grads, &factor, &limit) ||
        !look_over(grads, limit, 0, &jobs))
        return NULL;
    {
        PyThreadState *others = jobs.bytes > LET_OTHERS_RUN ? PyEval_SaveThread() : NULL;
        for (Py_ssize_t k = 0; k < jobs.used; k++)
            scale_job(jobs.list + k, factor);
        if (others)
            PyEval_RestoreThread(others);
    }
    PyMem_Free(jobs.list);
    return jobs.left;
}

static PyObject *gradients(PyObject *self, PyObject *parameters) {
    Py_ssize_t n, missing = 0;
    PyObject *found;
    (void)self;
    if (!PyTuple_Check(parameters)) {
        PyErr_SetString(PyExc_TypeError, "a tuple of parameters is wanted");
        return NULL;
    }
    n = PyTuple_GET_SIZE(parameters);
    found = PyTuple_New(n);
    for (Py_ssize_t i = 0; found && i < n; i++) {
        PyObject *grad = PyObject_GetAttr(PyTuple_GET_ITEM(parameters, i), name_grad);
        if (grad) {
            missing += grad == Py_None;
            PyTuple_SET_ITEM(found, i, grad);
        } else {
            Py_CLEAR(found);
        }
    }
    return found ? Py_BuildValue("(Nn)", found, missing) : NULL;
}

static PyObject *versions(PyObject *self, PyObject *args) {
    PyObject *parameters, *grads;
    long long sum = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!O!", &PyTuple_Type, &parameters, &PyTuple_Type, &grads))
        return NULL;
    if (PyTuple_GET_SIZE(parameters) != PyTuple_GET_SIZE(grads)) {
        PyErr_SetString(PyExc_ValueError, "one gradient for each parameter is wanted");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parameters); i++) {
        PyObject *version;
        PyObject *grad = PyObject_GetAttr(PyTuple_GET_ITEM(parameters, i), name_grad);
        if (!grad)
            return NULL;
        if (grad == Py_None) {
            sum += MISSING;
            Py_DECREF(grad);
            continue;
        }
        version = PyObject_GetAttr(grad, name_version);
        sum += grad == PyTuple_GET_ITEM(grads, i) ? 0 : REPLACED;
        Py_DECREF(grad);
        if (!version)
            return NULL;
        sum += PyLong_AsLongLong(version);
        Py_DECREF(version);
        if (PyErr_Occurred())
            return NULL;
    }
    return PyLong_FromLongLong(sum);
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

static PyObject *bind(PyObject *self, PyObject *args) {
    PyObject *capsule;
    PyTypeObject *type;
    const DLPackExchangeAPIHeader *header;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO!", &capsule, &PyType_Type, &type))
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
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_VARARGS,
     "bind(capsule, type): Use this DLPack table for tensors of exactly this type."},
    {"describe", describe, METH_O,
     "describe(tensor): Address, device, dtype code, bits, lanes, ndim, shape, strides."},
    {"gradients", gradients, METH_O,
     "gradients(parameters): A tuple of each one's `.grad`, and how many of them are None."},
    {"norms", norms, METH_VARARGS,
     "norms(grads, out, p, limit): Write the norm of each gradient (p of 1 or 2; 0: largest) into\n"
     "`out`; return the places of those that were not read, larger than `limit` among them."},
    {"scale", scale, METH_VARARGS,
     "scale(grads, factor, limit): Multiply float32 and float64 gradients in place; return the\n"
     "places of those that were not. Autograd has to be told (`increment_version`)."},
    {"versions", versions, METH_VARARGS,
     "versions(parameters, grads): A number that changes when a gradient is written or replaced."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "Norms of many gradients in one call.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) {
    name_grad = PyUnicode_InternFromString("grad");
    name_version = PyUnicode_InternFromString("_version");
    return name_grad && name_version ? PyModule_Create(&module) : NULL;
}
