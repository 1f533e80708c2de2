"""See connreceive.pxd."""
from libc.errno cimport ENOBUFS
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memmove

from fastlog.native.buf cimport BUF_CLASS_MAX, Buf, buf_data, buf_drop, buf_get, buf_hold
from fastlog.native.bytes cimport Reader, get32, read_i16, read_i32, read_uvarint, reader_init, reader_take
from fastlog.native.conn cimport conn_close, conn_dirty, request_count
from fastlog.native.net cimport REQ_RUNNING, Request, Shard, counter_add
from fastlog.native.quota cimport QUOTA_REQUEST, quota_on
from fastlog.native.ring cimport Op, ring_recv, ring_recv_any

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *out)
    int CLOCK_MONOTONIC

cdef enum:
    RX_FIRST = 16384                # a connection that wakes up gets this much, unless its frames are known to be larger
    RX_GROWN = 262144               # for connections whose frames are large
    RX_ROOM_MIN = 2048              # don't ask the kernel for less
    PARSE_BURST = 256               # requests of one connection in one go: others get their turn


cdef void conn_receive(Conn *c) noexcept nogil:
    """Into the connection's own buffer, or, when it has none, into one the engine picks."""
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
            conn_receive(c)
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
            conn_receive(c)
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
        conn_receive(c)


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


cdef bint conn_parse(Conn *c) noexcept nogil:
    if not may_parse(c):
        return False
    parse(c)
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
