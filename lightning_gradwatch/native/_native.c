/* Reads the norms of many gradients in one call, scales them, or measures what a step did to the
 * weights. Optional: see __init__.py.
 *
 * Whatever does not fit is left to the caller: its place is in the list that is returned.
 */
#include "looks.h"
#include "tensors.h"
#include "updates.h"

/* More than all counts of writes together, so that no two kinds of change cancel. */
#define REPLACED (1LL << 32)
#define MISSING (1LL << 47)

static PyObject *name_version;

/* Constants, so that each combination of p and type is compiled for itself. */
#define OF_EACH_KIND(p)                                                                           \
    (job->kind == F32   ? norm_of(F32, job->data, job->numel, p)                                  \
     : job->kind == F64 ? norm_of(F64, job->data, job->numel, p)                                  \
     : job->kind == F16 ? norm_of(F16, job->data, job->numel, p)                                  \
                        : norm_of(BF16, job->data, job->numel, p))

CHOSEN_AT_LOAD
static double norm_of_job(const Job *job, enum order p) {
    return p == SQUARES    ? OF_EACH_KIND(SQUARES)
           : p == ABSOLUTE ? OF_EACH_KIND(ABSOLUTE)
                           : OF_EACH_KIND(MAXIMUM);
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
        float *x = job->data, f = (float)factor;
        for (size_t i = 0; i < job->numel; i++)
            x[i] *= f;
    } else {
        double *x = job->data;
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

static PyMethodDef methods[] = {
    {"bind", bind, METH_VARARGS,
     "bind(capsule, type, parameter): Use this DLPack table for tensors of exactly this type,\n"
     "and for parameters of exactly that one."},
    {"compare_weights", compare_weights, METH_VARARGS,
     "compare_weights(parameters, rows, copy, known, sums, keep): Write what a step did to each\n"
     "weight in `rows` into `sums`, shape (6, rows); return those that were not measured. `keep`:\n"
     "the gradients' directions are the known ones from now on."},
    {"copy_weights", copy_weights, METH_VARARGS,
     "copy_weights(parameters, columns, rows, exact, sketch): Copy the weights whose column is not\n"
     "negative, in up to `exact` places; return the copy, how many `rows` were filled, and the\n"
     "places of those that were not copied though they have elements."},
    {"count", count, METH_VARARGS,
     "count(tensor, center, edge, dim, limit): Square sum, how many elements are not zero, and how\n"
     "many farther than `edge` from `center`, and a byte for each unit along `dim` (0: for none):\n"
     "whether any of it is not zero. None if it cannot be read."},
    {"describe", describe, METH_O,
     "describe(tensor): Address, device, dtype code, bits, lanes, ndim, shape, strides."},
    {"gradients", gradients, METH_O,
     "gradients(parameters): A tuple of each one's `.grad`, and how many of them are None."},
    {"norm", norm, METH_VARARGS, "norm(tensor, limit): Its 2-norm; None if it cannot be read."},
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
