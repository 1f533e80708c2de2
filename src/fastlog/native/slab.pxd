"""A cache of equal structs of one shard: a list through their first word. What comes back from it is zeroed."""
from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef enum:
    SLAB_CACHED_MAX = 8192


cdef inline void *slab_get(void **list, int32_t *n, size_t size) noexcept nogil:
    cdef void *item = list[0]
    if item != NULL:
        list[0] = (<void **> item)[0]
        n[0] -= 1
    else:
        item = malloc(size)
        if item == NULL:
            return NULL
    memset(item, 0, size)
    return item


cdef inline void slab_put(void **list, int32_t *n, void *item) noexcept nogil:
    if n[0] >= SLAB_CACHED_MAX:
        free(item)
        return
    (<void **> item)[0] = list[0]
    list[0] = item
    n[0] += 1


cdef inline void slab_free(void **list, int32_t *n) noexcept nogil:
    cdef void *item = list[0]
    cdef void *following
    while item != NULL:
        following = (<void **> item)[0]
        free(item)
        item = following
    list[0] = NULL
    n[0] = 0
