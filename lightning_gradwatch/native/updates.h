/* The two calls that measure a step: `copy_weights` before it, `compare_weights` after it.
 *
 * Between them the caller keeps the copy and a table of what is in it. Nothing of the first look is
 * trusted in the second: a step may give a weight other memory, another type or another size.
 */
#ifndef GRADWATCH_UPDATES_H
#define GRADWATCH_UPDATES_H

#include "weights.h"

/* Look a weight over, or a gradient that is not None. Returns whether it can be measured here. */
static int in_order(PyObject *tensor, Job *job) {
    int ours = Py_TYPE(tensor) == tensor_type || Py_TYPE(tensor) == parameter_type;
    return ours && reachable(tensor, PY_SSIZE_T_MAX, job) && (job->in_order || !job->numel);
}

static int append_number(PyObject *list, Py_ssize_t number) {
    PyObject *object = PyLong_FromSsize_t(number);
    int failed = !object || PyList_Append(list, object);
    Py_XDECREF(object);
    return !failed;
}

/* A contiguous buffer of at least so many bytes, on which `PyBuffer_Release` is to be called. */
static int open_buffer(PyObject *object, int flags, size_t bytes, Py_buffer *buffer) {
    if (PyObject_GetBuffer(object, buffer, flags))
        return 0;
    if ((size_t)buffer->len >= bytes && (uintptr_t)buffer->buf % sizeof(double) == 0)
        return 1;
    PyBuffer_Release(buffer);
    PyErr_SetString(PyExc_ValueError, "a table is too short, or not aligned");
    return 0;
}

/* What is copied of a weight, and where it goes: behind the copies of those before it. */
static void fill_row(Row *row, const Job *job, Py_ssize_t column, int64_t exact, int64_t sketch,
                     size_t *bytes) {
    int64_t taken, every;
    row->place = job->place;
    row->column = column;
    row->kind = job->kind;
    row->numel = (int64_t)job->numel;
    row->step = step_of(row->numel, exact);
    row->offset = (int64_t)*bytes;
    taken = places_in(row->numel, row->step);
    every = step_of(taken, sketch);
    row->places = places_in(taken, every);
    row->apart = row->step * every;
    row->room = (int64_t)in_eights((size_t)row->places * (row->kind == F64 ? 8 : 4));
    row->start = -1;
    *bytes += in_eights((size_t)taken * size_of(row->kind));
}

static PyObject *copy_weights(PyObject *self, PyObject *args) {
    PyObject *parameters, *columns, *table, *left = NULL, *copy = NULL;
    Py_buffer column, rows;
    long long exact, sketch;
    Py_ssize_t n, used = 0;
    size_t bytes = 0;
    Job *jobs;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!OOLL", &PyTuple_Type, &parameters, &columns, &table, &exact,
                          &sketch))
        return NULL;
    n = PyTuple_GET_SIZE(parameters);
    if (!api || exact < 1 || sketch < 1 || sketch > BLOCK) {
        PyErr_SetString(PyExc_ValueError, api ? "exact or sketch out of range" : "not bound yet");
        return NULL;
    }
    if (!open_buffer(columns, PyBUF_SIMPLE, (size_t)n * sizeof(Py_ssize_t), &column))
        return NULL;
    if (!open_buffer(table, PyBUF_WRITABLE, (size_t)n * sizeof(Row), &rows)) {
        PyBuffer_Release(&column);
        return NULL;
    }
    left = PyList_New(0);
    jobs = PyMem_New(Job, n ? n : 1);
    if (!left || !jobs)
        goto failed;
    for (Py_ssize_t i = 0; i < n; i++) {
        Py_ssize_t its = ((const Py_ssize_t *)column.buf)[i];
        Job *job = jobs + used;
        if (its < 0)
            continue;
        if (!in_order(PyTuple_GET_ITEM(parameters, i), job)) {
            if (!append_number(left, i))
                goto failed;
        } else if (job->numel) {
            job->place = i;
            fill_row((Row *)rows.buf + used++, job, its, exact, sketch, &bytes);
        }
    }
    copy = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (copy) {
        char *out = PyByteArray_AS_STRING(copy);
        PyThreadState *others = bytes > LET_OTHERS_RUN ? PyEval_SaveThread() : NULL;
        for (Py_ssize_t k = 0; k < used; k++)
            copy_of((Row *)rows.buf + k, jobs[k].data, out + ((Row *)rows.buf)[k].offset);
        if (others)
            PyEval_RestoreThread(others);
    }
failed:
    PyMem_Free(jobs);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&column);
    if (!copy) {
        Py_XDECREF(left);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    return Py_BuildValue("(NnN)", copy, used, left);
}

/* Whether a row, which was in Python's hands meanwhile, stays inside the memory that it names. */
static int fits(const Row *row, Py_ssize_t parameters, Py_ssize_t copy, Py_ssize_t known) {
    if (row->place < 0 || row->place >= parameters || row->numel < 1 || row->step < 1 ||
        row->step > row->numel ||
        row->kind < F32 || row->kind > BF16 || row->places < 1 || row->places > BLOCK ||
        row->apart < 1 || row->places - 1 > (row->numel - 1) / row->apart)
        return 0;
    return row->offset >= 0 && row->offset % 8 == 0 && row->offset <= copy &&
           places_in(row->numel, row->step) <= (copy - row->offset) / (int64_t)size_of(row->kind) &&
           row->start >= 0 && row->start % 8 == 0 && row->start <= known &&
           row->places <= (known - row->start) / (row->kind == F64 ? 8 : 4);
}

/* Find weight and gradient as they are now. Returns 1; 0: they are left; -1: an exception. */
static int find_pair(PyObject *parameter, Pair *pair) {
    Job now, grad;
    PyObject *object;
    if (!in_order(parameter, &now) || (int64_t)now.numel != pair->row->numel ||
        (int64_t)now.kind != pair->row->kind)
        return 0;
    object = PyObject_GetAttr(parameter, name_grad);
    if (!object)
        return -1;
    pair->held = object;
    if (object != Py_None) {
        if (!in_order(object, &grad) || grad.numel != now.numel || grad.kind != now.kind)
            return 0;
        pair->grad = grad.data;
    }
    pair->now = now.data;
    return 1;
}

/* Measure all whose pair can be found. Returns the rows of the others. */
static PyObject *compare_all(PyObject *parameters, const Row *rows, Py_ssize_t n,
                             const Py_buffer *copy, const Py_buffer *known, double *sums,
                             int keep) {
    PyObject *left = PyList_New(0);
    Pair *pairs = PyMem_Calloc(n ? (size_t)n : 1, sizeof(Pair));
    int found = 1;
    if (!pairs)
        PyErr_NoMemory();
    for (Py_ssize_t k = 0; left && pairs && found >= 0 && k < n; k++) {
        pairs[k].row = rows + k;
        pairs[k].before = (const char *)copy->buf + rows[k].offset;
        pairs[k].known = (char *)known->buf + rows[k].start;
        found = find_pair(PyTuple_GET_ITEM(parameters, rows[k].place), pairs + k);
        if (found == 0 && !append_number(left, k))
            found = -1;
    }
    if (PyErr_Occurred()) {
        Py_CLEAR(left);
    } else {
        PyThreadState *others = copy->len > LET_OTHERS_RUN ? PyEval_SaveThread() : NULL;
        for (Py_ssize_t k = 0; k < n; k++)
            if (pairs[k].now)
                compare_pair(pairs + k, keep, sums + k, (size_t)n);
        if (others)
            PyEval_RestoreThread(others);
    }
    for (Py_ssize_t k = 0; pairs && k < n; k++)
        Py_XDECREF(pairs[k].held);
    PyMem_Free(pairs);
    return left;
}

static PyObject *compare_weights(PyObject *self, PyObject *args) {
    PyObject *parameters, *objects[4], *left = NULL;
    Py_buffer buffers[4]; /* the table, the copy, known directions, sums */
    Py_ssize_t n, opened = 0, k = 0;
    int keep;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!OOOOp", &PyTuple_Type, &parameters, objects, objects + 1,
                          objects + 2, objects + 3, &keep))
        return NULL;
    if (!api) {
        PyErr_SetString(PyExc_ValueError, "not bound yet");
        return NULL;
    }
    while (opened < 4 && open_buffer(objects[opened], opened < 2 ? PyBUF_SIMPLE : PyBUF_WRITABLE,
                                     0, buffers + opened))
        opened++;
    if (opened == 4) {
        n = buffers[0].len / (Py_ssize_t)sizeof(Row);
        while (k < n && fits((const Row *)buffers[0].buf + k, PyTuple_GET_SIZE(parameters),
                             buffers[1].len, buffers[2].len))
            k++;
        if (k < n || buffers[3].len != n * SUMS * (Py_ssize_t)sizeof(double))
            PyErr_SetString(PyExc_ValueError, "the table does not fit what came with it");
        else
            left = compare_all(parameters, buffers[0].buf, n, buffers + 1, buffers + 2,
                               buffers[3].buf, keep);
    }
    while (opened)
        PyBuffer_Release(buffers + --opened);
    return left;
}

#endif
