"""Producing connections: requests written from templates, answers matched to them."""
from libc.errno cimport ECONNRESET, EPIPE
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastlog.native.loadhistogram cimport Histogram
from fastlog.native.loadtemplate cimport Templates

cdef extern from "<sys/uio.h>" nogil:
    ctypedef struct iovec "struct iovec":
        void *iov_base
        size_t iov_len

cdef enum:
    ERRORS = 256                    # error codes counted apart, from -1 on

cdef enum Trouble:
    NO_TROUBLE = 0
    CLOSED = 1                      # by the broker
    FAILED = 2                      # a system call, see errno
    MALFORMED = 3                   # what came is not the answer that was due
    TOO_LARGE = 4                   # an answer that does not fit the buffer

# What all producing connections of a run share; counters included, as one thread runs all.
ctypedef struct Load:
    Templates *templates
    int connections
    int partitions
    int batches                     # per request, each for another partition
    int window                      # requests in flight per connection
    bint topic_ids                  # the request names topics by id (Produce 13 and later)
    bint answered                   # acks is not 0
    double rate                     # requests a second over all connections; 0: closed loop
    uint8_t *prefix                 # a request up to its first partition
    size_t prefix_bytes
    uint8_t *item                   # what stands before a batch: partition, length
    size_t item_bytes
    size_t request_bytes            # the whole, with its length field
    int requests_per_fill
    bint copied                     # batches too small to be worth an iovec of their own
    uint64_t start_ns
    int64_t wall_ms                 # refreshed by the loop
    uint64_t record_from_ns         # requests due earlier are not in the latencies
    # counters
    uint64_t made                   # requests
    uint64_t answers
    uint64_t batches_acked
    uint64_t batches_failed
    uint64_t bytes_sent
    uint64_t disorder               # base offsets that went back
    uint64_t errors[ERRORS]
    Histogram *latency

ctypedef struct Producer:
    Load *load
    int index
    int fd
    bint queued                     # on the loop's list of connections to fill
    int64_t producer_id
    int16_t producer_epoch
    int32_t *sequences              # next, by partition
    int64_t *offsets                # last base offset acknowledged, by partition
    uint32_t partition              # the next batch's
    uint32_t filling
    uint32_t made                   # requests, and the next correlation id
    uint32_t answered
    uint32_t due                    # open loop: requests whose time has come, not yet made
    uint64_t scheduled              # open loop: requests made, for the next one's time
    uint64_t *due_ns                # ring of those in flight
    uint32_t ring_mask
    uint8_t *small                  # heads (and small batches) of the requests being sent
    size_t small_used
    iovec *pieces
    int pieces_used
    int pieces_sent
    uint8_t *inbox
    size_t inbox_used
    size_t inbox_size

cdef int producer_init(Producer *p, Load *load, int index, int fd, int64_t producer_id, int16_t producer_epoch) except -1
cdef void producer_free(Producer *p) noexcept
# Makes and sends as many requests as window, schedule and socket allow.
cdef Trouble producer_fill(Producer *p, uint64_t now_ns, bint draining) noexcept nogil
# Takes what has arrived; every answer leaves its latency and its errors in the counters.
cdef Trouble producer_receive(Producer *p) noexcept nogil

cdef inline Trouble trouble_of(int error) noexcept nogil:
    """What a failed system call on a socket means."""
    return CLOSED if error == ECONNRESET or error == EPIPE else FAILED


cdef inline uint32_t producer_in_flight(const Producer *p) noexcept nogil:
    return p.made - p.answered
