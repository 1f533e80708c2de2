"""See buf.pxd."""
from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef void bufs_init(Bufs *bufs, uint64_t used_max) noexcept nogil:
    memset(bufs, 0, sizeof(Bufs))
    bufs.used_max = used_max
    bufs.cached_max = used_max // 4


cdef void bufs_free(Bufs *bufs) noexcept nogil:
    cdef Buf *b
    cdef int i
    for i in range(BUF_CLASSES):
        while bufs.cache[i] != NULL:
            b = bufs.cache[i]
            bufs.cache[i] = b.next
            free(b)
    bufs.cached = 0


cdef Buf *buf_get(Bufs *bufs, uint64_t size) noexcept nogil:
    cdef Buf *b
    cdef int32_t size_class = 0
    cdef uint64_t capacity = BUF_CLASS_MIN
    while capacity < size and size_class < BUF_CLASSES:
        capacity <<= 1
        size_class += 1
    if size_class == BUF_CLASSES:
        size_class = -1
        capacity = size
    elif bufs.cache[size_class] != NULL:
        b = bufs.cache[size_class]
        bufs.cache[size_class] = b.next
        bufs.cached -= capacity
        b.refs = 1
        bufs.used += capacity
        return b
    b = <Buf *> malloc(BUF_HEAD + capacity)
    if b == NULL:
        return NULL
    b.next = NULL
    b.refs = 1
    b.size_class = size_class
    b.capacity = capacity
    bufs.used += capacity
    return b


cdef void buf_drop(Bufs *bufs, Buf *b) noexcept nogil:
    b.refs -= 1
    if b.refs:
        return
    bufs.used -= b.capacity
    if b.size_class >= 0 and bufs.cached + b.capacity <= bufs.cached_max:
        b.next = bufs.cache[b.size_class]
        bufs.cache[b.size_class] = b
        bufs.cached += b.capacity
    else:
        free(b)
