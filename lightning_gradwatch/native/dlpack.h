/* The few declarations of DLPack that reading a tensor in place needs.
 *
 * DLPack, https://github.com/dmlc/dlpack, is Copyright (c) 2017 by its contributors and licensed
 * under the Apache License, Version 2.0 (see LICENSE). Names, order and types of the fields are
 * those of dlpack.h 1.2 and 1.3, since they are what the other side has in memory; the rest of that
 * header is left out.
 */
#ifndef GRADWATCH_DLPACK_H
#define GRADWATCH_DLPACK_H

#include <stdint.h>

/* Another major version means another layout; a minor one only adds values. The table of functions
 * came with minor version 2. */
#define DLPACK_MAJOR 1
#define DLPACK_MINOR 2
#define DLPACK_CAPSULE "dlpack_exchange_api"

enum { DL_CPU = 1, DL_CUDA_HOST = 3, DL_ROCM_HOST = 11 };
enum { DL_FLOAT = 2, DL_BFLOAT = 4 };

typedef struct {
    uint32_t major, minor;
} DLPackVersion;

typedef struct {
    int32_t device_type, device_id;
} DLDevice;

typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} DLDataType;

typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL: C order */
    uint64_t byte_offset;
} DLTensor;

typedef struct DLPackExchangeAPIHeader {
    DLPackVersion version;
    struct DLPackExchangeAPIHeader *prev_api; /* the same of an older version, or NULL */
} DLPackExchangeAPIHeader;

/* Of these functions only `describe` is called; it may be NULL. It fills a DLTensor that owns
 * nothing and is good for as long as the tensor object lives and is not resized. */
typedef struct {
    DLPackExchangeAPIHeader header;
    void (*allocate)(void);
    void (*export_owning)(void);
    void (*import_owning)(void);
    int (*describe)(void *tensor, DLTensor *out); /* dltensor_from_py_object_no_sync */
    void (*current_work_stream)(void);
} DLPackExchangeAPI;

#endif
