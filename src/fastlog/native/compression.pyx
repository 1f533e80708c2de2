"""See compression.pxd; the codecs are in compression_impl_*.c."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT32_MAX, uint8_t, uint64_t
from libc.stdlib cimport free, malloc

cdef extern from "compression_impl.h" nogil:
    enum:
        FL_GZIP
        FL_ZSTD
    int fl_inflate_open(FlInflate *s, int codec, const void *p, size_t n, void *buffer, size_t capacity, uint64_t max) noexcept
    int fl_inflate_next(FlInflate *s, const uint8_t **piece, size_t *n) noexcept
    void fl_inflate_close(FlInflate *s) noexcept
    int fl_deflate_begin(FlDeflate *s, int codec, int level, uint64_t size, size_t head, size_t max) noexcept
    int fl_deflate_add(FlDeflate *s, const void *p, size_t n) noexcept
    int fl_deflate_end(FlDeflate *s) noexcept
    void fl_deflate_drop(FlDeflate *s) noexcept


cdef int inflate_open(FlInflate *s, int codec, const void *p, size_t n, void *buffer, size_t capacity, uint64_t max) noexcept nogil:
    return fl_inflate_open(s, codec, p, n, buffer, capacity, max)


cdef int inflate_next(FlInflate *s, const uint8_t **piece, size_t *n) noexcept nogil:
    return fl_inflate_next(s, piece, n)


cdef void inflate_close(FlInflate *s) noexcept nogil:
    fl_inflate_close(s)


cdef int deflate_begin(FlDeflate *s, int codec, int level, uint64_t size, size_t head, size_t max) noexcept nogil:
    return fl_deflate_begin(s, codec, level, size, head, max)


cdef int deflate_add(FlDeflate *s, const void *p, size_t n) noexcept nogil:
    return fl_deflate_add(s, p, n)


cdef int deflate_end(FlDeflate *s) noexcept nogil:
    return fl_deflate_end(s)


cdef void deflate_drop(FlDeflate *s) noexcept nogil:
    fl_deflate_drop(s)


# ---- for Python: the control plane's small needs, and tests ----------------------------------------------------------------------

def decompress(data, codec: int, size_max: int = 1 << 26) -> bytes:
    """What `codec` (1 gzip, 2 snappy, 3 lz4, 4 zstd) compressed. ValueError when it can't be decompressed or comes out larger than
    `size_max` bytes."""
    cdef Py_buffer view
    cdef FlInflate inflate
    cdef const uint8_t *piece = NULL
    cdef size_t n = 0
    cdef int status
    cdef list pieces = []
    cdef void *scratch
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    scratch = malloc(FL_SNAPPY_WINDOW)
    try:
        if scratch == NULL:
            raise MemoryError
        if view.len > INT32_MAX:
            raise ValueError("more than 2 GiB")
        status = inflate_open(&inflate, codec, view.buf, <size_t> view.len, scratch, FL_SNAPPY_WINDOW, size_max)
        if status == FL_END:
            status = FL_MORE
        while status == FL_MORE:
            status = inflate_next(&inflate, &piece, &n)
            if status == FL_MORE:
                pieces.append(PyBytes_FromStringAndSize(<const char *> piece, <Py_ssize_t> n))
        inflate_close(&inflate)
    finally:
        PyBuffer_Release(&view)
        free(scratch)
    if status == FL_MEMORY:
        raise MemoryError
    if status != FL_END:
        raise ValueError("it can't be decompressed" if status == FL_BAD else f"it decompresses to more than {size_max} bytes")
    return b"".join(pieces)


def compress(data, codec: int, level: int = 0) -> bytes:
    """`data` as the Java client compresses it with `codec` (1 gzip, 2 snappy, 3 lz4, 4 zstd); level 0 is the codec's default."""
    cdef Py_buffer view
    cdef FlDeflate deflate
    cdef int status
    if not FL_GZIP <= codec <= FL_ZSTD:
        raise ValueError(f"no such codec: {codec}")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    status = deflate_begin(&deflate, codec, level, <uint64_t> view.len, 0, INT32_MAX)
    try:
        if status == FL_END:
            status = deflate_add(&deflate, view.buf, <size_t> view.len)
        if status == FL_END:
            status = deflate_end(&deflate)
        if status == FL_BIG:
            raise ValueError("it comes out larger than 2 GiB")
        if status != FL_END:
            raise MemoryError
        return PyBytes_FromStringAndSize(<char *> deflate.out, <Py_ssize_t> deflate.used)
    finally:
        deflate_drop(&deflate)
        PyBuffer_Release(&view)
