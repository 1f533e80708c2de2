"""See crc32c.pxd; the kernels are in crc32c_impl.c."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t

cdef extern from "crc32c_impl.h" nogil:
    void fl_crc32c_init() noexcept
    uint32_t fl_crc32c(uint32_t crc, const void *p, size_t n) noexcept
    int fl_crc32c_kernels() noexcept
    const char *fl_crc32c_name(int kernel) noexcept
    uint32_t fl_crc32c_with(int kernel, uint32_t crc, const void *p, size_t n) noexcept

fl_crc32c_init()


cdef uint32_t crc32c(uint32_t crc, const void *p, size_t n) noexcept nogil:
    return fl_crc32c(crc, p, n)


cdef const char *crc32c_kernel() noexcept nogil:
    return fl_crc32c_name(0)


def kernels() -> list[str]:
    """Names of the kernels that this CPU can run, the chosen one first; "table" is always among them."""
    return [fl_crc32c_name(i).decode() for i in range(fl_crc32c_kernels())]


def checksum(data, crc: int = 0, kernel: str | None = None) -> int:
    """CRC-32C of a bytes-like object, continuing `crc`; by a named kernel, or the chosen one.

    Raises ValueError when this CPU has no such kernel, BufferError or TypeError when `data` is not contiguous bytes.
    """
    cdef Py_buffer view
    cdef uint32_t value = crc
    cdef int chosen = 0
    if kernel is not None:
        chosen = kernels().index(kernel)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            value = fl_crc32c_with(chosen, value, view.buf, <size_t> view.len)
    finally:
        PyBuffer_Release(&view)
    return value
