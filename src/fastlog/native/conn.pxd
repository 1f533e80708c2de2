"""A connection and its requests as those see them who handle requests: responses, quotas, the end. See net.pxd for the lives of Conn and
Request; connreceive, connsend and conns do the rest."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from fastlog.native.net cimport Conn, Request, Shard

# Closes for `why` (static or copied at once); bad: the peer's fault, logged as a warning with its name.
cdef void conn_close(Conn *c, const char *why, bint bad) noexcept nogil
# Response memory: room for `size` bytes of the response's own; starts with the response header already written (length left open).
# Returns where the body goes, or NULL: no memory (the connection is closed then).
cdef uint8_t *response_room(Request *r, uint32_t size) noexcept nogil
# Sets the response to what response_room gave, `body` bytes of it used.
cdef void response_plain(Request *r, uint32_t body) noexcept nogil
cdef int response_iov_room(Request *r, int32_t n) noexcept nogil       # 0, or -1: no memory
# Bytes of the response header before the body.
cdef uint32_t response_head(const Request *r) noexcept nogil
# The response is complete (or, when silent, there is none).
cdef void request_ready(Request *r) noexcept nogil
# Counts `amount` for its client's quota (a kind of quota.pxd); sets r.throttle_ms when that is too much. Reads r.client_id.
cdef void request_count(Request *r, int kind, double amount) noexcept nogil
cdef void conn_resume(Conn *c) noexcept nogil                           # after `paused` was cleared
# The name of a descriptor's peer, for log lines.
cdef void peer_name(int fd, char *out, size_t n) noexcept nogil
# A line for the operator; rate-limited per shard.
cdef void shard_log(Shard *shard, int level, const char *text) noexcept nogil


cdef inline void conn_dirty(Conn *c) noexcept nogil:
    """Has conns_turn look at it."""
    if not c.dirty:
        c.dirty = True
        c.dirty_next = c.shard.dirty
        c.shard.dirty = c
