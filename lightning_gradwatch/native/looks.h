/* From Python to the kernels of outputs.h, and the norm of a single tensor. */
#ifndef GRADWATCH_LOOKS_H
#define GRADWATCH_LOOKS_H

#include "outputs.h"
#include "tensors.h"

/* Work on more bytes than this lets other Python threads run meanwhile. */
#define LET_OTHERS_RUN (1 << 20)

/* Constants, so that each type is compiled for itself. */
CHOSEN_AT_LOAD
static void count_in(const Job *job, const Limit *limit, const Units *units, void *on,
                     Counted *out) {
    switch (job->kind) {
    case F32:
        count_of(F32, job->data, job->numel, limit, units, on, out);
        break;
    case F64:
        count_of(F64, job->data, job->numel, limit, units, on, out);
        break;
    case F16:
        count_of(F16, job->data, job->numel, limit, units, on, out);
        break;
    case BF16:
        count_of(BF16, job->data, job->numel, limit, units, on, out);
        break;
    }
}

CHOSEN_AT_LOAD
static double square_norm(const Job *job) {
    return job->kind == F32   ? norm_of(F32, job->data, job->numel, SQUARES)
           : job->kind == F64 ? norm_of(F64, job->data, job->numel, SQUARES)
           : job->kind == F16 ? norm_of(F16, job->data, job->numel, SQUARES)
                              : norm_of(BF16, job->data, job->numel, SQUARES);
}

/* Where the units of a dense tensor lie. Returns whether it has such a dimension. */
static int units_of(PyObject *tensor, int dim, size_t numel, Units *units) {
    DLTensor t;
    memset(&t, 0, sizeof t);
    if (api->describe(tensor, &t)) {
        PyErr_Clear();
        return 0;
    }
    if (dim >= 0 || dim < -t.ndim || !t.strides)
        return 0;
    units->size = (size_t)t.shape[t.ndim + dim];
    units->inner = units->size > 1 ? (size_t)t.strides[t.ndim + dim] : numel;
    units->outer = numel / (units->size * units->inner);
    return units->outer * units->size * units->inner == numel;
}

/* A byte of 0 or 1 for each word. */
static PyObject *flags(const char *on, size_t n, size_t width) {
    PyObject *made = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    static const char nothing[8];
    for (size_t i = 0; made && i < n; i++)
        PyBytes_AS_STRING(made)[i] = memcmp(on + i * width, nothing, width) != 0;
    return made;
}

static PyObject *count(PyObject *self, PyObject *args) {
    PyObject *tensor, *active;
    Py_ssize_t limit;
    int dim;
    Job job;
    Limit flat;
    Units units = {0, 0, 0};
    Counted seen;
    size_t width;
    char *on = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "Oddin", &tensor, &flat.center, &flat.edge, &dim, &limit))
        return NULL;
    if (!api || limit < 0) {
        PyErr_SetString(PyExc_ValueError, api ? "limit must not be negative" : "not bound yet");
        return NULL;
    }
    if (!readable(tensor, limit, &job) || !job.numel)
        Py_RETURN_NONE;
    width = job.kind == F64 ? 8 : job.kind == F32 ? 4 : 2;
    /* Half precision rounds the distance to the center. */
    if ((width == 2 && flat.center != 0) || (dim && !units_of(tensor, dim, job.numel, &units)))
        Py_RETURN_NONE;
    if (units.size && !(on = PyMem_Calloc(units.size, width)))
        return PyErr_NoMemory();
    {
        PyThreadState *others = job.numel * width > LET_OTHERS_RUN ? PyEval_SaveThread() : NULL;
        count_in(&job, &flat, &units, on, &seen);
        if (others)
            PyEval_RestoreThread(others);
    }
    active = units.size ? flags(on, units.size, width) : Py_NewRef(Py_None);
    PyMem_Free(on);
    return active ? Py_BuildValue("(dnnN)", seen.squares, (Py_ssize_t)seen.nonzero,
                                  (Py_ssize_t)seen.beyond, active)
                  : NULL;
}

static PyObject *norm(PyObject *self, PyObject *args) {
    PyObject *tensor;
    Py_ssize_t limit;
    Job job;
    double found;
    PyThreadState *others;
    (void)self;
    if (!PyArg_ParseTuple(args, "On", &tensor, &limit))
        return NULL;
    if (!api || limit < 0) {
        PyErr_SetString(PyExc_ValueError, api ? "limit must not be negative" : "not bound yet");
        return NULL;
    }
    if (!readable(tensor, limit, &job))
        Py_RETURN_NONE;
    others = job.numel > LET_OTHERS_RUN / 4 ? PyEval_SaveThread() : NULL;
    found = square_norm(&job);
    if (others)
        PyEval_RestoreThread(others);
    return PyFloat_FromDouble(found);
}

#endif
