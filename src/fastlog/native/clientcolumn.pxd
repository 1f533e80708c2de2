"""A column of byte strings as a caller gave it, read in place: a list of bytes, a buffer with offsets, rows of one width, an Arrow array.

Pure reading of memory that somebody else owns; nogil. `clientcolumn.pyx` makes columns of Python objects and keeps those alive.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t

cdef enum ColumnKind:
    COLUMN_NULL = 0                 # every value is null
    COLUMN_SAME                     # every value is the same: `base`, `width`
    COLUMN_POINTERS                 # pointers[i], widths[i]; a width of -1 is null
    COLUMN_OFFSETS_32               # base + offsets32[i] up to offsets32[i + 1]
    COLUMN_OFFSETS_64
    COLUMN_FIXED                    # base + i * stride, width
    COLUMN_TRIMMED                  # the same without zero bytes at its end, as NumPy's S has it
    COLUMN_VIEWS                    # Arrow's binary view: 16 bytes each, buffers[]

cdef struct Column:
    ColumnKind kind
    int64_t n
    const uint8_t *base
    int64_t stride
    int64_t width
    const int32_t *offsets32
    const int64_t *offsets64
    const uint8_t **pointers
    const int64_t *widths
    const uint8_t **buffers
    const uint8_t *valid            # Arrow's validity bits, or NULL
    int64_t valid_at                # the first row's bit


# Row i; -1 and NULL for null.
cdef inline int64_t column_get(const Column *c, int64_t i, const uint8_t **p) noexcept nogil:
    cdef int64_t n
    cdef const uint8_t *view
    if c.valid != NULL and not (c.valid[(c.valid_at + i) >> 3] >> ((c.valid_at + i) & 7)) & 1:
        p[0] = NULL
        return -1
    if c.kind == COLUMN_POINTERS:
        p[0] = c.pointers[i]
        return c.widths[i]
    if c.kind == COLUMN_OFFSETS_32:
        p[0] = c.base + c.offsets32[i]
        return c.offsets32[i + 1] - c.offsets32[i]
    if c.kind == COLUMN_OFFSETS_64:
        p[0] = c.base + c.offsets64[i]
        return c.offsets64[i + 1] - c.offsets64[i]
    if c.kind == COLUMN_FIXED:
        p[0] = c.base + i * c.stride
        return c.width
    if c.kind == COLUMN_SAME:
        p[0] = c.base
        return c.width
    if c.kind == COLUMN_TRIMMED:
        p[0] = c.base + i * c.stride
        n = c.width
        while n and not p[0][n - 1]:
            n -= 1
        return n
    if c.kind == COLUMN_VIEWS:
        view = c.base + i * 16
        n = (<const int32_t *> view)[0]
        if n <= 12:
            p[0] = view + 4
        else:
            p[0] = c.buffers[(<const int32_t *> view)[2]] + (<const int32_t *> view)[3]
        return n
    p[0] = NULL
    return -1


cdef class Values:
    """A column of byte strings, and what keeps its memory alive."""
    cdef Column c
    cdef object owner
    cdef list buffers               # of Held
    cdef void *pointers             # malloc'ed, or NULL
    cdef void *widths


cdef class Integers:
    """A column of int64 (timestamps) or int32 (partitions), contiguous."""
    cdef int64_t *p64               # one of the two; only read
    cdef int32_t *p32
    cdef int64_t n
    cdef object owner
    cdef list buffers


cdef Values values_of(object given, int64_t n)
cdef Integers integers_of(object given, int64_t n, bint wide)
