"""See conn.pxd."""
from libc.errno cimport ENOBUFS
from libc.stdint cimport int16_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, strncpy

from fastlog.native.buf cimport BUF_CLASS_MAX, Buf, buf_data, buf_drop, buf_get, buf_hold
from fastlog.native.bytes cimport Reader, get32, put32, read_i16, read_i32, read_uvarint, reader_init, reader_take
from fastlog.native.mail cimport mail_send
from fastlog.native.net cimport LOG_INFO, LOG_WARNING, MAIL_LOG, PEER_MAX, REQ_READY, REQ_RUNNING, SEND_IOV, LogLine, SendVec, counter_add
from fastlog.native.quota cimport QUOTA_REQUEST, quota_on, quota_record
from fastlog.native.ring cimport Op, iovec, ring_cancel, ring_recv, ring_recv_any, ring_sendmsg
from fastlog.native.standing cimport standing_drop
from fastlog.native.timer cimport Timer, timer_arm, timer_disarm

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *out)
    int CLOCK_MONOTONIC

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "<sys/socket.h>" nogil:
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int n)
    int SHUT_RDWR

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
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
    static void fl_no_delay(int fd) { int one = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); }
    """
    void fl_peer(int fd, char *out, size_t n) noexcept nogil
    void fl_no_delay(int fd) noexcept nogil

cdef enum:
    RX_FIRST = 16384                # a connection that wakes up gets this much, unless its frames are known to be larger
    RX_GROWN = 262144               # for connections whose frames are large
    RX_ROOM_MIN = 2048              # don't ask the kernel for less
    REQUESTS_CACHED = 4096
    PARSE_BURST = 256               # requests of one connection in one go: others get their turn
    LOG_LINES_PER_S = 50
    QUIET_NS = 1000000000


cdef void conn_peer(const Conn *c, char *out, size_t n) noexcept nogil:
    fl_peer(c.fd, out, n)


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


# ---- life ----------------------------------------------------------------------------------------------------------------------

cdef void conn_open(Shard *shard, int fd, uint32_t listener) noexcept nogil:
    cdef Conn *c
    cdef char text[128]
    cdef char peer[PEER_MAX]
    if shard.counters.conns >= shard.limits.conns_max:
        c = NULL
    else:
        c = <Conn *> calloc(1, sizeof(Conn))
    if c == NULL:
        counter_add(&shard.counters.conns_refused, 1)
        fl_peer(fd, peer, sizeof(peer))
        snprintf(text, sizeof(text), "refused %s: this shard has its limit of %lld connections", peer, <long long> shard.limits.conns_max)
        shard_log(shard, LOG_WARNING, text)
        close(fd)
        return
    c.shard = shard
    c.fd = fd
    c.listener = listener
    c.active_ns = shard.now_ns
    c.recv_op.done = on_recv_any
    c.send_op.done = on_sent
    c.mute.fired = unmute
    c.next = shard.conns
    if c.next != NULL:
        c.next.prev = c
    shard.conns = c
    counter_add(&shard.counters.conns, 1)
    counter_add(&shard.counters.conns_accepted, 1)
    fl_no_delay(fd)
    receive(c)


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
        conn_peer(c, peer, sizeof(peer))
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


cdef void conn_dirty(Conn *c) noexcept nogil:
    if not c.dirty:
        c.dirty = True
        c.dirty_next = c.shard.dirty
        c.shard.dirty = c


cdef void conn_resume(Conn *c) noexcept nogil:
    c.stalled = True
    conn_dirty(c)


cdef bint conn_gone(Conn *c) noexcept nogil:
    """Frees a closing connection when nothing holds it any more."""
    cdef Shard *shard = c.shard
    while c.first != NULL and c.first.state == REQ_READY and not c.sending:
        request_end(c)
    if c.receiving or c.sending or c.first != NULL:
        return False
    timer_disarm(&shard.timers, &c.mute)
    if c.rx != NULL:
        buf_drop(&shard.bufs, c.rx)
    if c.standing != NULL:
        standing_drop(c.standing)
    if c.prev != NULL:
        c.prev.next = c.next
    else:
        shard.conns = c.next
    if c.next != NULL:
        c.next.prev = c.prev
    close(c.fd)
    free(c)
    counter_add(&shard.counters.conns, -1)
    return True


# ---- receiving -----------------------------------------------------------------------------------------------------------------

cdef void receive(Conn *c) noexcept nogil:
    """Starts the next receive: into the connection's own buffer, or, when it has none, into one the engine picks."""
    cdef Shard *shard = c.shard
    c.receiving = True
    if c.rx == NULL:
        c.recv_op.done = on_recv_any
        ring_recv_any(shard.ring, &c.recv_op, c.fd)
        return
    c.recv_op.done = on_recv
    ring_recv(shard.ring, &c.recv_op, c.fd, buf_data(c.rx) + c.rx_end, c.rx.capacity - c.rx_end)


cdef void on_recv_any(Op *op) noexcept nogil:
    cdef Conn *c = <Conn *> (<char *> op - <size_t> &(<Conn *> NULL).recv_op)
    cdef uint64_t want
    c.receiving = False
    if c.closing:
        conn_dirty(c)
        return
    if op.res == -ENOBUFS:          # all of the engine's buffers are in use: take one of our own
        if take_buffer(c, RX_FIRST):
            receive(c)
        return
    if op.res <= 0:
        received(c, op.res)
        return
    want = c.frame_typical + 4 if c.frame_typical > RX_FIRST else RX_FIRST
    if want > RX_FIRST:
        want = want * 2 if want * 2 > RX_GROWN else RX_GROWN
        want = want if want < BUF_CLASS_MAX else BUF_CLASS_MAX
    if want < <uint64_t> op.res:
        want = op.res
    if not take_buffer(c, want):
        return
    memcpy(buf_data(c.rx), op.buf, op.res)
    received(c, op.res)


cdef bint take_buffer(Conn *c, uint64_t size) noexcept nogil:
    c.rx = buf_get(&c.shard.bufs, size)
    c.rx_start = 0
    c.rx_end = 0
    if c.rx == NULL:
        conn_close(c, b"no memory for its requests", False)
        return False
    return True


cdef void on_recv(Op *op) noexcept nogil:
    cdef Conn *c = <Conn *> (<char *> op - <size_t> &(<Conn *> NULL).recv_op)
    c.receiving = False
    if c.closing:
        conn_dirty(c)
        return
    received(c, op.res)


cdef void received(Conn *c, int32_t res) noexcept nogil:
    cdef Shard *shard = c.shard
    if res <= 0:
        if res == -125:             # ECANCELED: the sweep asked for the buffer back
            if c.rx != NULL and c.rx_start == c.rx_end:
                buf_drop(&shard.bufs, c.rx)
                c.rx = NULL
            receive(c)
            return
        if res == 0 and c.rx != NULL and c.rx_end > c.rx_start:
            conn_close(c, b"it ended in the middle of a request", False)
        else:
            conn_close(c, NULL, False)
        return
    counter_add(&shard.counters.receives, 1)
    counter_add(&shard.counters.bytes_in, res)
    c.rx_end += res
    c.active_ns = shard.now_ns
    parse(c)


cdef bint may_parse(Conn *c) noexcept nogil:
    cdef Shard *shard = c.shard
    return not (c.closing or c.paused or c.muted or c.barrier or shard.draining or c.n_requests >= shard.limits.requests_per_conn_max
                or c.bytes_in_progress >= shard.limits.bytes_per_conn_max or c.answers_bytes >= shard.limits.answers_per_conn_max
                or (shard.bufs.used > shard.bufs.used_max and c.n_requests > 0))


cdef void parse(Conn *c) noexcept nogil:
    """Takes whole frames off the receive buffer while it may; then sees to it that more is received."""
    cdef Shard *shard = c.shard
    cdef uint8_t *p
    cdef uint64_t left
    cdef int64_t length
    cdef int burst = 0
    cdef char text[160]
    c.stalled = False
    while c.rx != NULL:
        left = c.rx_end - c.rx_start
        if left < 4:
            break
        p = buf_data(c.rx) + c.rx_start
        length = <int32_t> get32(p)
        if length < 8 or length > shard.limits.request_bytes_max:
            snprintf(text, sizeof(text), "a request of %lld bytes (allowed: 8 to %lld, socket.request.max.bytes)", <long long> length,
                     <long long> shard.limits.request_bytes_max)
            conn_close(c, text, True)
            return
        if left < 4 + <uint64_t> length:
            break
        if not may_parse(c) or burst == PARSE_BURST:
            c.stalled = True
            if burst == PARSE_BURST:
                conn_dirty(c)
            else:
                counter_add(&shard.counters.stalls, 1)
            return
        if not start_request(c, p + 4, <uint32_t> length):
            return
        burst += 1
    if not c.receiving and not c.closing and make_room(c):
        receive(c)


cdef bint make_room(Conn *c) noexcept nogil:
    """Sees to it that the receive buffer has room for what comes next. False: the connection was closed."""
    cdef Buf *old = c.rx
    cdef uint64_t left, need, want
    cdef uint64_t start = c.rx_start
    if old == NULL:
        return True
    left = c.rx_end - start
    if left == 0 and old.refs == 1:
        c.rx_start = 0
        c.rx_end = 0
        if old.capacity >= RX_GROWN or c.frame_typical <= RX_FIRST:
            return True
    need = 0
    if left >= 4:
        need = 4 + <uint64_t> get32(buf_data(old) + start)
        if need <= old.capacity - c.rx_start:
            return True
    elif old.capacity - c.rx_end >= RX_ROOM_MIN and (c.frame_typical <= RX_FIRST or old.capacity >= RX_GROWN):
        return True
    elif old.capacity - c.rx_end >= c.frame_typical + 4:
        return True
    # A frame's length is only believed as far as its bytes have come, or as this connection's frames have been as large before:
    # a length that lies costs nothing.
    want = need
    if need > BUF_CLASS_MAX and need > c.frame_typical + 4:
        want = left * 4 if left * 4 > BUF_CLASS_MAX else BUF_CLASS_MAX
        want = want if want < need else need
    if want < RX_FIRST:
        want = RX_FIRST
    if c.frame_typical > RX_FIRST and want < RX_GROWN:
        want = RX_GROWN
        if c.frame_typical * 2 > want:
            want = BUF_CLASS_MAX if c.frame_typical * 2 > BUF_CLASS_MAX else c.frame_typical * 2
    if old.refs == 1 and want <= old.capacity:
        if start:
            memmove(buf_data(old), buf_data(old) + start, left)
            c.rx_start = 0
            c.rx_end = left
        return c.rx_end < old.capacity or grow(c, want, left)
    return grow(c, want, left)


cdef bint grow(Conn *c, uint64_t want, uint64_t left) noexcept nogil:
    cdef Buf *old = c.rx
    cdef uint64_t start = c.rx_start
    if want <= left:
        want = left * 2
    if not take_buffer(c, want):
        c.rx = old
        return False
    memcpy(buf_data(c.rx), buf_data(old) + start, left)
    c.rx_end = left
    buf_drop(&c.shard.bufs, old)
    return True


# ---- requests ------------------------------------------------------------------------------------------------------------------

cdef bint start_request(Conn *c, const uint8_t *p, uint32_t length) noexcept nogil:
    """Reads the request header (v1, v2), queues the request, hands it on. False: stop parsing this connection."""
    cdef Shard *shard = c.shard
    cdef Request *r
    cdef Reader reader
    cdef int16_t key, version, id_length
    cdef int32_t correlation
    cdef const uint8_t *client_id = NULL
    cdef bint flexible, barrier
    cdef uint32_t tags
    cdef char text[160]
    reader_init(&reader, p, length)
    key = read_i16(&reader)
    version = read_i16(&reader)
    correlation = read_i32(&reader)
    if key < 0 or key >= 128 or version < 0:
        snprintf(text, sizeof(text), "an unknown request (API key %d, version %d)", <int> key, <int> version)
        conn_close(c, text, True)
        return False
    # an ApiVersions request of a version we don't know has an unknown header; its answer needs nothing after the correlation id
    flexible = shard.flexible_from[key] >= 0 and version >= shard.flexible_from[key]
    id_length = read_i16(&reader)
    if id_length >= 0:
        client_id = reader_take(&reader, id_length)
    elif id_length != -1:
        reader.bad = True
    if flexible:
        tags = read_uvarint(&reader)
        while tags and not reader.bad:
            read_uvarint(&reader)
            reader_take(&reader, read_uvarint(&reader))
            tags -= 1
    if reader.bad:
        snprintf(text, sizeof(text), "a request header that can't be read (API key %d, version %d)", <int> key, <int> version)
        conn_close(c, text, True)
        return False
    barrier = key > 3
    if barrier and c.n_requests:
        # it starts when all before it have been answered
        c.stalled = True
        return False
    r = shard.request_free
    if r != NULL:
        shard.request_free = r.next
        shard.request_free_n -= 1
    else:
        r = <Request *> malloc(sizeof(Request))
        if r == NULL:
            conn_close(c, b"no memory for its requests", False)
            return False
    r.conn = c
    r.shard = shard
    r.next = NULL
    r.frame = c.rx
    buf_hold(c.rx)
    r.body = reader
    r.api_key = key
    r.version = version
    r.correlation = correlation
    r.client_id = client_id
    r.client_id_length = id_length
    r.frame_bytes = length + 4
    r.state = REQ_RUNNING
    r.flexible = flexible and key != 18
    r.barrier = barrier
    r.silent = False
    r.throttle_ms = 0
    r.out = r.out_small
    r.out_capacity = sizeof(r.out_small)
    r.iov = r.iov_small
    r.iov_capacity = 2
    r.n_iov = 0
    r.out_bytes = 0
    r.pinned = False
    r.work = NULL
    r.release = NULL
    r.abort = NULL
    r.unpin = NULL
    if c.last != NULL:
        c.last.next = r
    else:
        c.first = r
    c.last = r
    c.n_requests += 1
    c.barrier = barrier
    c.bytes_in_progress += r.frame_bytes
    c.rx_start += r.frame_bytes
    if length > RX_FIRST:
        c.frame_typical = length
    elif c.frame_typical:
        c.frame_typical -= c.frame_typical // 8
    counter_add(&shard.counters.requests, 1)
    counter_add(&shard.counters.requests_live, 1)
    if key <= 2 and quota_on(shard.quotas, QUOTA_REQUEST):
        dispatch_timed(r)
    else:
        shard.dispatch(r)
    return not c.closing


# ---- quotas --------------------------------------------------------------------------------------------------------------------

cdef int64_t clock_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t> t.tv_sec * 1000000000 + t.tv_nsec


cdef void dispatch_timed(Request *r) noexcept nogil:
    """Counts the time of the connection's last request, which is known now, and takes this one's."""
    cdef Conn *c = r.conn
    cdef int64_t began = clock_ns()
    request_count(r, QUOTA_REQUEST, <double> c.spent_ns)
    c.shard.dispatch(r)
    c.spent_ns = clock_ns() - began


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
    c.muted = timer_arm(&shard.timers, &c.mute, at) == 0


cdef void unmute(Timer *t) noexcept nogil:
    cdef Conn *c = <Conn *> (<char *> t - <size_t> &(<Conn *> NULL).mute)
    c.muted = False
    conn_resume(c)


cdef void request_end(Conn *c) noexcept nogil:
    """The oldest request was sent or dropped."""
    cdef Shard *shard = c.shard
    cdef Request *r = c.first
    c.first = r.next
    if c.first == NULL:
        c.last = NULL
    c.n_requests -= 1
    c.bytes_in_progress -= r.frame_bytes
    c.answers_bytes -= r.out_bytes
    c.sent_of_first = 0
    if r.barrier:
        c.barrier = False
    if r.release != NULL:
        r.release(r)
    if r.frame != NULL:
        buf_drop(&shard.bufs, r.frame)
    if r.out != r.out_small:
        free(r.out)
    if r.iov != r.iov_small:
        free(r.iov)
    if shard.request_free_n < REQUESTS_CACHED:
        r.next = shard.request_free
        shard.request_free = r
        shard.request_free_n += 1
    else:
        free(r)
    counter_add(&shard.counters.requests_live, -1)


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


cdef void output(Conn *c) noexcept nogil:
    """Sends the responses that are ready at the head of the queue, many in one system call."""
    cdef Shard *shard = c.shard
    cdef Request *r
    cdef SendVec *vec
    cdef int n = 0, i
    cdef int64_t skip, length
    while c.first != NULL and c.first.state == REQ_READY and c.first.n_iov == 0:
        request_end(c)
    if c.sending or c.first == NULL or c.first.state != REQ_READY:
        return
    vec = shard.vec_free
    if vec != NULL:
        shard.vec_free = vec.next
    else:
        vec = <SendVec *> calloc(1, sizeof(SendVec))
        if vec == NULL:
            conn_close(c, b"no memory to send its responses", False)
            return
    r = c.first
    skip = c.sent_of_first
    while r != NULL and r.state == REQ_READY and n < SEND_IOV:
        for i in range(r.n_iov):
            length = <int64_t> r.iov[i].iov_len
            if skip >= length:
                skip -= length
                continue
            vec.iov[n].iov_base = <uint8_t *> r.iov[i].iov_base + skip
            vec.iov[n].iov_len = <size_t> (length - skip)
            skip = 0
            n += 1
            if n == SEND_IOV:
                break
        r = r.next
    vec.message.msg_iov = vec.iov
    vec.message.msg_iovlen = n
    c.vec = vec
    c.sending = True
    counter_add(&shard.counters.sends, 1)
    ring_sendmsg(shard.ring, &c.send_op, c.fd, &vec.message)


cdef void on_sent(Op *op) noexcept nogil:
    cdef Conn *c = <Conn *> (<char *> op - <size_t> &(<Conn *> NULL).send_op)
    cdef Shard *shard = c.shard
    cdef int64_t sent = op.res
    c.sending = False
    c.vec.next = shard.vec_free
    shard.vec_free = c.vec
    c.vec = NULL
    if c.unpin and not c.closing:
        c.unpin = False
        unpin(c)
        if sent == -125:            # ECANCELED: the same again, from the copy
            c.active_ns = shard.now_ns
            conn_dirty(c)
            return
    if sent < 0:
        if not c.closing:
            conn_close(c, NULL, False)
        conn_dirty(c)
        return
    counter_add(&shard.counters.bytes_out, sent)
    c.active_ns = shard.now_ns
    c.sent_of_first += sent
    while c.first != NULL and c.first.state == REQ_READY and c.sent_of_first >= c.first.out_bytes:
        sent = c.sent_of_first - c.first.out_bytes
        request_end(c)
        c.sent_of_first = sent
        if not sent:
            break
    conn_dirty(c)


cdef void unpin(Conn *c) noexcept nogil:
    """Its peer does not read: what its answers pin of the log's memory is copied, or, without room for that, the connection closed."""
    cdef Request *r = c.first
    while r != NULL:
        if r.state == REQ_READY and r.pinned:
            if not r.unpin(r):
                conn_close(c, b"it does not read its responses", True)
                return
            r.pinned = False
        r = r.next


cdef void conns_turn(Shard *shard) noexcept nogil:
    cdef Conn *c = shard.dirty
    cdef Conn *following
    shard.dirty = NULL
    while c != NULL:
        following = c.dirty_next
        c.dirty = False
        if c.closing:
            conn_gone(c)
        else:
            output(c)
            if shard.draining and c.first == NULL:
                conn_close(c, NULL, False)
            if c.stalled and may_parse(c):
                parse(c)
                if not c.closing:
                    output(c)
        c = following


cdef bint pins(const Conn *c) noexcept nogil:
    cdef Request *r = c.first
    while r != NULL:
        if r.state == REQ_READY and r.pinned:
            return True
        r = r.next
    return False


cdef void conns_sweep(Shard *shard) noexcept nogil:
    cdef Conn *c = shard.conns
    cdef Conn *following
    while c != NULL:
        following = c.next
        if not c.closing:
            if c.n_requests == 0 and shard.now_ns - c.active_ns > shard.limits.idle_ms * 1000000:
                conn_close(c, b"idle for longer than connections.max.idle.ms", False)
            elif c.rx != NULL and c.receiving and c.rx_start == c.rx_end and shard.now_ns - c.active_ns > QUIET_NS:
                ring_cancel(shard.ring, &c.recv_op)
            elif c.sending and not c.unpin and shard.now_ns - c.active_ns > shard.limits.stuck_ms * 1000000 and pins(c):
                c.unpin = True
                ring_cancel(shard.ring, &c.send_op)
        c = following
    shard.counters.memory_buffers = <int64_t> shard.bufs.used
