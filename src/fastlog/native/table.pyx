"""See table.pxd."""
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

cdef extern from "siphash.h" nogil:
    uint32_t secret_hash "fl_hash"(const void *p, uint64_t n)


cdef int table_init(Table *table) noexcept nogil:
    table.mask = 255
    table.n = 0
    table.version = 1
    table.by_name = <Topic **> calloc(table.mask + 1, sizeof(Topic *))
    table.by_id = <Topic **> calloc(table.mask + 1, sizeof(Topic *))
    if table.by_name == NULL or table.by_id == NULL:
        table_free(table)
        return -1
    return 0


cdef void table_free(Table *table) noexcept nogil:
    cdef uint32_t i
    cdef Topic *topic
    if table.by_name != NULL:
        for i in range(table.mask + 1):
            while table.by_name[i] != NULL:
                topic = table.by_name[i]
                table.by_name[i] = topic.next_name
                topic_drop(topic)
    free(table.by_name)
    free(table.by_id)
    table.by_name = NULL
    table.by_id = NULL
    table.n = 0


cdef inline uint32_t hash_id(const uint8_t *id) noexcept nogil:
    # topic ids are random (version 4), so any of their bits will do
    cdef uint32_t h
    memcpy(&h, id + 8, 4)
    return h ^ id[15]


cdef Topic *table_by_name(const Table *table, const void *name, size_t length) noexcept nogil:
    cdef Topic *topic = table.by_name[secret_hash(name, length) & table.mask]
    while topic != NULL:
        if topic.name_length == length and memcmp(topic.name, name, length) == 0:
            return topic
        topic = topic.next_name
    return NULL


cdef Topic *table_by_id(const Table *table, const uint8_t *id) noexcept nogil:
    cdef Topic *topic = table.by_id[hash_id(id) & table.mask]
    while topic != NULL:
        if memcmp(topic.id, id, 16) == 0:
            return topic
        topic = topic.next_id
    return NULL


cdef Topic *topic_new(int32_t n) noexcept nogil:
    cdef Topic *topic = <Topic *> calloc(1, sizeof(Topic))
    if topic == NULL:
        return NULL
    topic.parts = <Partition **> calloc(n if n else 1, sizeof(Partition *))
    if topic.parts == NULL:
        free(topic)
        return NULL
    topic.refs = 1
    topic.n = n
    return topic


cdef void topic_drop(Topic *topic) noexcept nogil:
    topic.refs -= 1
    if topic.refs == 0:
        free(topic.parts)
        free(topic)


cdef void link(Table *table, Topic *topic) noexcept nogil:
    cdef uint32_t at = secret_hash(topic.name, topic.name_length) & table.mask
    topic.next_name = table.by_name[at]
    table.by_name[at] = topic
    at = hash_id(topic.id) & table.mask
    topic.next_id = table.by_id[at]
    table.by_id[at] = topic


cdef int grow(Table *table) noexcept nogil:
    cdef uint32_t old_mask = table.mask, i
    cdef Topic **old = table.by_name
    cdef Topic **old_id = table.by_id
    cdef uint32_t mask = old_mask * 2 + 1
    cdef Topic **by_name = <Topic **> calloc(<uint64_t> mask + 1, sizeof(Topic *))
    cdef Topic **by_id = <Topic **> calloc(<uint64_t> mask + 1, sizeof(Topic *))
    cdef Topic *topic
    cdef Topic *following
    if by_name == NULL or by_id == NULL:
        free(by_name)
        free(by_id)
        return -1
    table.by_name = by_name
    table.by_id = by_id
    table.mask = mask
    for i in range(old_mask + 1):
        topic = old[i]
        while topic != NULL:
            following = topic.next_name
            link(table, topic)
            topic = following
    free(old)
    free(old_id)
    return 0


cdef int table_put(Table *table, Topic *topic) noexcept nogil:
    cdef Topic *old
    if table.n > table.mask and grow(table) < 0:
        return -1
    old = table_remove(table, topic.id)
    if old != NULL:
        topic_drop(old)
    link(table, topic)
    table.n += 1
    table.version += 1
    return 0


cdef Topic *table_remove(Table *table, const uint8_t *id) noexcept nogil:
    cdef Topic *topic = table_by_id(table, id)
    cdef Topic **at
    if topic == NULL:
        return NULL
    at = &table.by_name[secret_hash(topic.name, topic.name_length) & table.mask]
    while at[0] != topic:
        at = &at[0].next_name
    at[0] = topic.next_name
    at = &table.by_id[hash_id(id) & table.mask]
    while at[0] != topic:
        at = &at[0].next_id
    at[0] = topic.next_id
    table.n -= 1
    table.version += 1
    return topic
