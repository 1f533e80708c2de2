"""What the consumer gives to Python: a record, and a batch of them as columns."""
from libc.stdint cimport int64_t
from fastlog.native.clientread cimport Chunk, Strings


cdef class RecordBatch:
    cdef Chunk *chunk
    cdef readonly str topic
    cdef object key_deserializer
    cdef object value_deserializer
    cdef int64_t first                  # of the chunk's rows: this batch's, and how many
    cdef int64_t n

    cdef object record(self, int64_t i)
    cdef tuple strings(self, Strings *s)
    cdef object null_rows(self, Strings *s)


# Takes over the chunk's reference.
cdef RecordBatch batch_of(Chunk *chunk, str topic, object key_deserializer, object value_deserializer)
