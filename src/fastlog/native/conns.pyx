"""See conns.pxd."""
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc

from fastlog.native.conn cimport conn_close, peer_name, shard_log
from fastlog.native.connreceive cimport conn_receive
from fastlog.native.net cimport LOG_WARNING, PEER_MAX, REQ_READY, Conn, Request, counter_add
from fastlog.native.ring cimport ring_cancel

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/socket.h>
    static void fl_no_delay(int fd) { int one = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); }
    """
    void fl_no_delay(int fd) noexcept nogil

cdef enum:
    QUIET_NS = 1000000000


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
        peer_name(fd, peer, sizeof(peer))
        snprintf(text, sizeof(text), "refused %s: this shard has its limit of %lld connections", peer, <long long> shard.limits.conns_max)
        shard_log(shard, LOG_WARNING, text)
        close(fd)
        return
    c.shard = shard
    c.fd = fd
    c.listener = listener
    c.active_ns = shard.now_ns
    c.next = shard.conns
    if c.next != NULL:
        c.next.prev = c
    shard.conns = c
    counter_add(&shard.counters.conns, 1)
    counter_add(&shard.counters.conns_accepted, 1)
    fl_no_delay(fd)
    conn_receive(c)


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
