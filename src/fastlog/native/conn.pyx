"""See conn.pxd."""
from libc.stdint cimport uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strncpy

from fastlog.native.buf cimport buf_drop
from fastlog.native.bytes cimport put32
from fastlog.native.mail cimport mail_send
from fastlog.native.net cimport LOG_INFO, LOG_WARNING, MAIL_LOG, PEER_MAX, REQ_READY, REQ_RUNNING, LogLine, counter_add
from fastlog.native.quota cimport quota_record
from fastlog.native.ring cimport iovec, ring_cancel
from fastlog.native.timer cimport Timer, timer_arm, timer_disarm

cdef extern from "<sys/socket.h>" nogil:
    int shutdown(int fd, int how)
    int SHUT_RDWR

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    static void fl_peer(int fd, char *out, size_t n) {
        struct sockaddr_storage a; socklen_t len = sizeof a; char host[64];
        if (getpeername(fd, (struct sockaddr *) &a, &len) != 0) { snprintf(out, n, "unknown peer (fd %d)", fd); return; }
        if (a.ss_family == AF_INET) {
            struct sockaddr_in *i = (struct sockaddr_in *) &a;
            inet_ntop(AF_INET, &i->sin_addr, host, sizeof host); snprintf(out, n, "%s:%d", host, ntohs(i->sin_port));
        } else if (a.ss_family == AF_INET6) {
            struct sockaddr_in6 *i = (struct sockaddr_in6 *) &a;
            inet_ntop(AF_INET6, &i->sin6_addr, host, sizeof host); snprintf(out, n, "[%s]:%d", host, ntohs(i->sin6_port));
        } else snprintf(out, n, "unix socket (fd %d)", fd);
    }
    """
    void fl_peer(int fd, char *out, size_t n) noexcept nogil

cdef enum:
    LOG_LINES_PER_S = 50


cdef void peer_name(int fd, char *out, size_t n) noexcept nogil:
    fl_peer(fd, out, n)


cdef void shard_log(Shard *shard, int level, const char *text) noexcept nogil:
    cdef LogLine *line
    if shard.now_ns - shard.log_window_ns > 1000000000:
        shard.log_window_ns = shard.now_ns
        shard.log_in_window = 0
    shard.log_in_window += 1
    if shard.log_in_window > LOG_LINES_PER_S:
        counter_add(&shard.counters.log_dropped, 1)
        return
    line = <LogLine *> malloc(sizeof(LogLine))
    if line == NULL:
        return
    line.level = level
    strncpy(line.text, text, sizeof(line.text) - 1)
    line.text[sizeof(line.text) - 1] = 0
    mail_send(shard.out[shard.n], MAIL_LOG, 0, line)
    shard.out_dirty = 1


cdef void conn_close(Conn *c, const char *why, bint bad) noexcept nogil:
    cdef char peer[PEER_MAX]
    cdef char text[400]
    cdef Request *r
    cdef Request *following
    if c.closing:
        return
    c.closing = True
    if bad:
        counter_add(&c.shard.counters.conns_closed_bad, 1)
    if why != NULL:
        peer_name(c.fd, peer, sizeof(peer))
        snprintf(text, sizeof(text), "closed the connection of %s: %s", peer, why)
        shard_log(c.shard, LOG_WARNING if bad else LOG_INFO, text)
    # the shutdown ends the operations under way; the descriptor stays until they did
    shutdown(c.fd, SHUT_RDWR)
    if c.receiving:
        ring_cancel(c.shard.ring, &c.recv_op)
    r = c.first
    while r != NULL:
        following = r.next
        if r.state == REQ_RUNNING and r.abort != NULL:
            r.abort(r)
        r = following
    conn_dirty(c)


cdef void conn_resume(Conn *c) noexcept nogil:
    c.stalled = True
    conn_dirty(c)


# ---- quotas --------------------------------------------------------------------------------------------------------------------

cdef void request_count(Request *r, int kind, double amount) noexcept nogil:
    cdef Shard *shard = r.shard
    cdef int32_t wait = quota_record(shard.quotas, kind, r.client_id, r.client_id_length, amount, shard.now_ns // 1000000)
    if wait > r.throttle_ms:
        r.throttle_ms = wait


cdef void mute(Conn *c, int32_t ms) noexcept nogil:
    cdef Shard *shard = c.shard
    cdef int64_t at = shard.now_ns + <int64_t> ms * 1000000
    counter_add(&shard.counters.throttled, 1)
    if c.muted:
        if c.mute.at_ns >= at:
            return
        timer_disarm(&shard.timers, &c.mute)
    c.mute.fired = unmute
    c.muted = timer_arm(&shard.timers, &c.mute, at) == 0


cdef void unmute(Timer *t) noexcept nogil:
    cdef Conn *c = <Conn *> (<char *> t - <size_t> &(<Conn *> NULL).mute)
    c.muted = False
    conn_resume(c)


# ---- responses -----------------------------------------------------------------------------------------------------------------

cdef uint32_t response_head(const Request *r) noexcept nogil:
    return 9 if r.flexible else 8


cdef uint8_t *response_room(Request *r, uint32_t size) noexcept nogil:
    cdef uint32_t head = response_head(r)
    cdef uint8_t *out
    if head + size > r.out_capacity:
        out = <uint8_t *> malloc(<uint64_t> head + size)
        if out == NULL:
            conn_close(r.conn, b"no memory for its response", False)
            return NULL
        if r.out != r.out_small:
            free(r.out)
        r.out = out
        r.out_capacity = head + size
    put32(r.out + 4, <uint32_t> r.correlation)
    if r.flexible:
        r.out[8] = 0
    return r.out + head


cdef void response_plain(Request *r, uint32_t body) noexcept nogil:
    r.iov[0].iov_base = r.out
    r.iov[0].iov_len = response_head(r) + body
    r.n_iov = 1


cdef int response_iov_room(Request *r, int32_t n) noexcept nogil:
    cdef iovec *grown
    cdef int32_t capacity = r.iov_capacity
    if n <= capacity:
        return 0
    while capacity < n:
        capacity *= 2
    grown = <iovec *> malloc(capacity * sizeof(iovec))
    if grown == NULL:
        return -1
    memcpy(grown, r.iov, r.n_iov * sizeof(iovec))
    if r.iov != r.iov_small:
        free(r.iov)
    r.iov = grown
    r.iov_capacity = capacity
    return 0


cdef void request_ready(Request *r) noexcept nogil:
    cdef int i
    r.out_bytes = 0
    if r.silent:
        r.n_iov = 0
    if r.n_iov:
        for i in range(r.n_iov):
            r.out_bytes += <int64_t> r.iov[i].iov_len
        put32(r.out, <uint32_t> (r.out_bytes - 4))
    r.state = REQ_READY
    r.abort = NULL
    if r.throttle_ms > 0 and not r.conn.closing:
        mute(r.conn, r.throttle_ms)
    r.conn.answers_bytes += r.out_bytes
    if r.frame != NULL and r.release == NULL:
        # nothing of the response points into the request: let the receive buffer go
        buf_drop(&r.shard.bufs, r.frame)
        r.frame = NULL
    conn_dirty(r.conn)
