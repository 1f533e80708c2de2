"""Zigzag varints, of which records are made (protocol guide, "Record"): numbers near zero, of either sign, take few bytes."""
from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef inline uint64_t zigzag(int64_t v) noexcept nogil:
    return (<uint64_t> v << 1) ^ <uint64_t> (v >> 63)


cdef inline int64_t unzigzag(uint64_t v) noexcept nogil:
    return <int64_t> ((v >> 1) ^ (~(v & 1) + 1))


cdef inline int varint_size(uint64_t v) noexcept nogil:
    """Bytes that varint_put writes."""
    cdef int n = 1
    while v >= 0x80:
        v >>= 7
        n += 1
    return n


cdef inline uint8_t *varint_put(uint8_t *p, uint64_t v) noexcept nogil:
    """Where the next byte goes."""
    while v >= 0x80:
        p[0] = <uint8_t> (v | 0x80)
        p += 1
        v >>= 7
    p[0] = <uint8_t> v
    return p + 1
