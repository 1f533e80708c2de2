"""Receive buffers: counted memory that requests parse in place, cached by size so that the hot path touches warm pages.

A Bufs belongs to one shard; so do the counts of its buffers. `used` is what the connections hold; the shard stops reading from
its sockets when it passes `used_max` (back-pressure), so it is a bound within one frame per connection.
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef enum:
    BUF_CLASSES = 9                 # 4 KiB << 0..8: 4 KiB to 1 MiB
    BUF_CLASS_MIN = 4096
    BUF_CLASS_MAX = 1048576
    BUF_HEAD = 32                   # bytes before the data

cdef struct Buf:
    Buf *next                       # in the cache
    uint32_t refs
    int32_t size_class              # -1: larger than the classes, never cached
    uint64_t capacity               # bytes of data

cdef struct Bufs:
    Buf *cache[9]
    uint64_t used                   # bytes handed out
    uint64_t cached
    uint64_t used_max
    uint64_t cached_max

cdef inline uint8_t *buf_data(Buf *b) noexcept nogil:
    return (<uint8_t *> b) + BUF_HEAD

cdef void bufs_init(Bufs *bufs, uint64_t used_max) noexcept nogil
cdef void bufs_free(Bufs *bufs) noexcept nogil
# A buffer of at least `size` bytes with one reference, or NULL when the system has no memory.
cdef Buf *buf_get(Bufs *bufs, uint64_t size) noexcept nogil
cdef void buf_drop(Bufs *bufs, Buf *b) noexcept nogil

cdef inline void buf_hold(Buf *b) noexcept nogil:
    b.refs += 1
