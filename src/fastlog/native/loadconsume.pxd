"""Fetching connections: each follows some partitions with long polls, and checks all that it reads."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastlog.native.loadhistogram cimport Histogram
from fastlog.native.loadproduce cimport ERRORS, Trouble
from fastlog.native.loadtemplate cimport Templates

# What all fetching connections of a run share.
ctypedef struct Drain:
    Templates *templates
    bint topic_ids                  # Fetch 13 and later
    bint check_contents             # the CRC of each batch, and that it is one that was sent
    bint rewind                     # at its end start again from its beginning
    uint64_t record_from_ns
    # counters
    uint64_t fetches
    uint64_t empty                  # answers without a batch
    uint64_t batches
    uint64_t records
    uint64_t bytes                  # of batches
    uint64_t gaps                   # batches that don't start where the last one ended
    uint64_t bad_crc
    uint64_t foreign                # sound, but not sent by these templates
    uint64_t errors[ERRORS]
    Histogram *end_to_end           # from the time at which a batch was to be sent to the arrival of the answer that holds it
    Histogram *latency              # of a fetch that brought something

ctypedef struct Consumer:
    Drain *drain
    int fd
    int partitions
    int32_t *slots                  # by partition id: its place in the request, -1 none
    int slots_size
    int32_t *ids                    # by slot
    int64_t *first                  # where reading starts, by slot
    int64_t *next
    int64_t *until                  # read to here, then stop or rewind; -1: without end
    size_t *offset_at               # where the request holds a slot's offset
    uint8_t *request                # with its length field
    size_t request_bytes
    uint32_t correlation
    uint64_t sent_ns
    bint waiting                    # a fetch is in flight
    bint finished                   # every partition is read to its `until`
    uint8_t *inbox
    size_t inbox_used
    size_t inbox_size

cdef int consumer_init(Consumer *c, Drain *drain, int fd, bytes request, list offset_at, list ids, list first, list until,
                       size_t inbox_size) except -1
cdef void consumer_free(Consumer *c) noexcept
cdef Trouble consumer_ask(Consumer *c) noexcept nogil
# Takes what has arrived and, unless `last`, asks for more.
cdef Trouble consumer_receive(Consumer *c, bint last) noexcept nogil
