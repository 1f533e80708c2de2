"""A Fetch request under way: what its rooms share.

`fetch` looks at the partitions and decides what comes next; `fetchread` brings bytes, `fetchwait` waits for some, `fetchanswer` writes
the response. The rooms below answer upwards by the three calls that `fetch` sets in a FetchWork.

A FetchWork lives until its request was released and nothing of it is with another shard or the store (`outstanding`); its reads
and, without a session, its partitions go with it. All of it belongs to the connection's shard; a FetchRead that is out, and a watch
that is armed elsewhere, are the owner's to use until they come back.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from fastlog.native.aborted cimport Aborted
from fastlog.native.log cimport Read
from fastlog.native.net cimport Request, Shard
from fastlog.native.session cimport FetchPart, Session
from fastlog.native.timer cimport Timer

ctypedef void (*FetchCall)(FetchWork *work) noexcept nogil

cdef enum FetchPhase:
    FETCH_READING = 0
    FETCH_PARKED = 1
    FETCH_UNPARKING = 2             # watches are taken back, or pins given back
    FETCH_SENDING = 3

cdef struct FetchRead:
    Read read                       # first: a Read is its FetchRead
    FetchRead *next                 # of the request
    FetchPart *part                 # only while FETCH_READING
    FetchWork *work
    Shard *home
    int32_t reserved                # of the budget
    uint32_t bytes                  # as read; the log's own count goes with the pins
    bint out                        # with the owner
    uint8_t *copied                 # malloc'ed copy instead of pins, or NULL
    Aborted aborted                 # as read: it outlives the pins

cdef struct FetchWork:
    Timer timer                     # first: a Timer is its FetchWork
    FetchCall read_done             # a read came back
    FetchCall released              # the last pins that went by mail are with their owner, and nothing else is outstanding
    FetchCall unwatched             # no watch is left, and no partition is held for one
    Request *request                # NULL once it was released
    Shard *shard
    Session *session
    FetchPart *first                # without a session: its own
    FetchPart *last
    FetchPart *cursor
    FetchRead *reads
    FetchWork *parked_next
    FetchWork *parked_prev
    bint parked
    int64_t deadline_ns
    int32_t min_bytes
    int64_t budget
    int64_t total
    int32_t outstanding             # reads, watches and releases with other shards, reads with the store
    uint8_t phase
    bint committed
    bint replica                    # asked as a broker that follows
    bint wait
    bint failed                     # some partition has an error: answer at once
    bint aborted
    bint pumping
    bint incremental
    bint by_id
    bint quota                      # its bytes are counted: the request's frame is kept for the client's id
    bint copy_out                   # too much is pinned already


cdef inline FetchPart *first_part(FetchWork *work) noexcept nogil:
    return work.session.first if work.session != NULL else work.first
