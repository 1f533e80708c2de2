"""Keys and values of committed offsets as `__consumer_offsets` has them: what packs them partition by partition shares these.

A string beyond 32,767 bytes raises ValueError.
"""
from libc.stdint cimport int32_t, int64_t

cdef Py_ssize_t utf16_units(str text) except -1
cdef bytes key_prefix(str group, str topic)
cdef bytes key_of(bytes prefix, int32_t partition)
cdef bytes value_of(int64_t offset, int32_t epoch, str metadata, int64_t commit_ms, bytes topic_id)
cdef bytes expiring_value_of(int64_t offset, str metadata, int64_t commit_ms, int64_t expire_ms)
