"""What a producer's calls return: `Delivery` (a record), `Deliveries` (a call's records). They outlive the producer.

They ask the producer, a ProducerCore, for what needs its settings: `_failure`, `_refused`, `_watch`, `_names`, `_record_metadata`.
"""
from libc.stdint cimport int32_t, int64_t
from fastlog.native.clientbatch cimport OutBatch
from fastlog.native.clientproduce cimport Core, Segments


cdef class Shared:
    """The core's memory: it stays until the last result that points into it is gone."""
    cdef Core *c
    cdef int born


cdef class Delivery:
    cdef Shared shared
    cdef object producer
    cdef OutBatch *batch
    cdef int32_t index


cdef class Deliveries:
    cdef Shared shared
    cdef object producer
    cdef Segments found
    cdef readonly int64_t count


# The monotonic clock's microseconds after `timeout` seconds; -1 for None. TypeError or ValueError for what is no time.
cdef int64_t deadline_us(object timeout) except? -2
# Until the batch is done; ClientTimeoutError at `until` (-1: never).
cdef bint await_batch(Shared shared, object producer, OutBatch *batch, int64_t until) except False
cdef Delivery delivery_of(Shared shared, object producer, OutBatch *batch, int32_t index)
