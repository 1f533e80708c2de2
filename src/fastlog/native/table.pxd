"""The topics a shard knows: what the control plane decided, as plain tables that only this shard's thread touches.

Each shard has copies of its own, changed by commands; so produce and fetch look topics up without a lock and never wait for
Python. A Topic is counted, because a request may still hold the rules it was validated by when a newer copy arrives. `version` of
the Table changes with every change, so that a cached look-up can be trusted while it is the same.
"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from fastlog.native.batchcheck cimport BatchRules
from fastlog.native.log cimport Partition

cdef enum:
    TOPIC_NAME_MAX = 249

cdef struct Topic:
    uint32_t refs
    uint8_t id[16]
    uint16_t name_length
    char name[250]
    bint internal
    BatchRules rules
    int32_t n                       # partitions
    Partition **parts               # n of them; NULL where one isn't open
    Topic *next_name
    Topic *next_id

cdef struct Table:
    Topic **by_name
    Topic **by_id
    uint32_t mask
    uint32_t n
    uint32_t version

cdef int table_init(Table *table) noexcept nogil
cdef void table_free(Table *table) noexcept nogil
cdef Topic *table_by_name(const Table *table, const void *name, size_t length) noexcept nogil
cdef Topic *table_by_id(const Table *table, const uint8_t *id) noexcept nogil
# A Topic with one reference and room for n partitions, or NULL: no memory.
cdef Topic *topic_new(int32_t n) noexcept nogil
cdef inline void topic_hold(Topic *topic) noexcept nogil:
    topic.refs += 1
cdef void topic_drop(Topic *topic) noexcept nogil
# Takes over the caller's reference; replaces the topic of the same id. -1: no memory (nothing changed).
cdef int table_put(Table *table, Topic *topic) noexcept nogil
# Takes the topic out and gives its reference to the caller, or NULL.
cdef Topic *table_remove(Table *table, const uint8_t *id) noexcept nogil
