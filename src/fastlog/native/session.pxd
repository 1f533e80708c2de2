"""Fetch sessions (KIP-227): what a consumer asked for last time, so that it need only name what changed.

A session belongs to the shard that made it; its id carries the shard's number, and it outlives the connection. A request for a
session of another shard is answered FETCH_SESSION_ID_NOT_FOUND, upon which clients make a new one.

Of a request without a session the FetchParts belong to the request; of one with a session, to the session, which only one request
at a time may use (`busy`).
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from fastlog.native.log cimport Partition, Watch
from fastlog.native.net cimport Shard

cdef enum:
    FETCH_SLAB = 320                # bytes of the slab's items: the largest of FetchPart and fetch's own structs

cdef enum WatchState:
    WATCH_NONE = 0
    WATCH_HERE = 1                  # armed on this shard
    WATCH_THERE = 2                 # sent to the owner
    WATCH_ENDING = 3                # UNWATCH sent: only UNWATCHED ends it

cdef struct FetchPart:
    Watch watch                     # first: a Watch is its FetchPart
    FetchPart *next
    FetchPart *prev
    FetchPart *chain                # in the session's hash
    void *work                      # the request that uses it now
    Shard *home
    uint8_t *name                   # versions before 13; in the frame, or owned when `owns_name`
    int32_t name_length
    uint8_t topic_id[16]
    bint by_id
    bint owns_name
    int32_t index
    int64_t offset
    int32_t bytes_max
    int32_t leader_epoch            # -1: not checked
    uint32_t table_version          # of the look-up below
    Partition *part                 # NULL: see `unknown`
    int16_t unknown                 # the error code that a partition without one gets
    uint8_t watch_state
    bint held                       # counted in part.users
    bint was_found                  # by its topic, at some time
    # of this request:
    int16_t error
    int64_t high_watermark
    int64_t last_stable
    int64_t log_start
    int64_t visible                 # end of what may be read
    void *read                      # FetchRead, or NULL
    # as last told to the client:
    int64_t sent_high_watermark
    int64_t sent_log_start

cdef struct Session:
    int32_t id
    int32_t epoch                   # expected of the next request
    bint by_id
    bint busy
    bint doomed                     # freed when no longer busy
    int32_t n
    FetchPart *first
    FetchPart *last
    FetchPart **hash
    uint32_t mask
    int64_t used_ns
    Session *next
    Session *prev

cdef Session *session_find(Shard *shard, int32_t id) noexcept nogil
cdef Session *session_new(Shard *shard, bint by_id) noexcept nogil         # NULL: the limit is reached, or no memory
cdef void session_end(Shard *shard, Session *s) noexcept nogil             # now, or when no longer busy
cdef FetchPart *session_part(const Session *s, const FetchPart *like) noexcept nogil
cdef int session_add(Session *s, FetchPart *part) noexcept nogil           # takes it over; -1: no memory
cdef void session_remove(Shard *shard, Session *s, FetchPart *part) noexcept nogil
cdef void session_to_end(Session *s, FetchPart *part) noexcept nogil       # it had data: the others come first next time
cdef FetchPart *fetch_part_new(Shard *shard) noexcept nogil
cdef void fetch_part_free(Shard *shard, FetchPart *part) noexcept nogil
# Of a request without a session: of partitions that are named twice the last counts, in the first one's place, as with a session.
# The last one of the list; NULL: no memory.
cdef FetchPart *fetch_parts_once(Shard *shard, FetchPart *first) noexcept nogil
cdef void sessions_free(Shard *shard) noexcept nogil
