"""Record batches as the client makes them: records framed straight into the batch that will be sent (magic 2; native/batch reads them).

Pure but for malloc. A batch is made in one buffer with its header's room in front; `batch_seal` compresses, numbers and checksums it.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t

cdef enum BatchState:
    BATCH_OPEN = 0                  # takes records
    BATCH_WAITING                   # to be sent, or to be sent again
    BATCH_SENT                      # its answer is awaited
    BATCH_DONE                      # `error` and `offset` are final

cdef struct OutBatch:
    int32_t refs                    # of the core's and of Python's results; under the core's lock
    BatchState state
    bint sealed
    bint watched                    # Python wants to be told
    OutBatch *next                  # in its partition's queue or its request
    OutBatch *done_next             # in the list of what Python is to be told
    void *part                      # clientproduce's Part
    int64_t serial                  # the order in which batches were begun
    int32_t topic                   # for results, which outlive the partition
    int32_t number
    uint8_t *data                   # header and records; NULL when done
    size_t used
    size_t capacity
    size_t charged                  # bytes counted against buffer_memory
    int32_t count
    int64_t base_ms
    int64_t max_ms
    int64_t payload                 # bytes of keys and values
    int64_t made_us
    int64_t retry_us                # not before
    int32_t attempts
    int64_t producer_id
    int16_t producer_epoch
    int32_t sequence                # -1: none yet
    int16_t error                   # Kafka's code, or one of clientproduce's own
    int64_t offset                  # of the first record; -1: unknown (acks=0, a duplicate)
    int64_t append_ms               # -1: the records' own times count

cdef enum:
    RECORD_OVERHEAD = 36            # a record's bytes besides key, value and headers, at the most: 5 + 1 + 10 + 5 + 5 + 5 and some

# The record's headers as they are sent: NULL for none, else their count and the headers (blob).
cdef void batch_add(OutBatch *b, int64_t ms, const uint8_t *key, int64_t key_n, const uint8_t *value, int64_t value_n,
                    const uint8_t *headers, int64_t headers_n) noexcept nogil
# Makes the batch final: codec and level as in native/compression (an incompressible batch stays as it is), attributes besides the codec.
# Returns 0, or -1 without memory. Sequence and producer are as the batch's fields say.
cdef int batch_seal(OutBatch *b, int codec, int level, int16_t attributes) noexcept nogil
# Writes producer id, epoch and sequence anew into a sealed batch.
cdef void batch_number(OutBatch *b) noexcept nogil
cdef uint32_t murmur2(const uint8_t *p, size_t n) noexcept nogil
