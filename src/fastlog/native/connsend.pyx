"""See connsend.pxd."""
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free

from fastlog.native.buf cimport buf_drop
from fastlog.native.conn cimport conn_close, conn_dirty
from fastlog.native.connreceive cimport conn_parse
from fastlog.native.net cimport REQ_READY, SEND_IOV, Conn, Request, SendVec, counter_add
from fastlog.native.ring cimport Op, ring_sendmsg
from fastlog.native.standing cimport standing_drop
from fastlog.native.timer cimport timer_disarm

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef enum:
    REQUESTS_CACHED = 4096


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
    c.send_op.done = on_sent
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
            if c.stalled and conn_parse(c) and not c.closing:
                output(c)
        c = following
