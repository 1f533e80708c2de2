"""The load generator for peers that don't speak Kafka's protocol: Valkey's streams (RESP) and NATS JetStream.

As in the Kafka generator, a batch is built once and sent again and again, as many at a time as window, clock and socket allow; a batch is
acknowledged when each of its records is. One thread, edge-triggered epoll, no GIL.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, strtoul
from libc.string cimport memchr, memcpy, memmove, memset, strerror
from posix.unistd cimport close

from fastlog.native.loadclock cimport now_ns
from fastlog.native.loadhistogram cimport Histogram, histogram_summary, record
from fastlog.native.loadpoll cimport (
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLRDHUP, EVENTS, SPIN_NS, bench_exact_timers, bench_wait, bench_watch, epoll_create1, epoll_event,
)

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *buffer, size_t n, int flags)
    ssize_t recv(int fd, void *buffer, size_t n, int flags)
    int MSG_NOSIGNAL
    int MSG_DONTWAIT

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t n, const void *needle, size_t m)

cdef enum:
    COPIES_BYTES = 1 << 18          # of batches that one call may send
    INBOX_BYTES = 1 << 17

cdef enum Protocol:
    RESP = 0
    NATS = 1

ctypedef struct Peer:
    int fd
    uint32_t tag
    const uint8_t *at               # what is still to be written of the batches made
    size_t left
    uint64_t *due_ns                # ring of batches in flight
    uint32_t made
    uint32_t answered
    uint32_t acks                   # of the oldest batch in flight
    uint32_t due                    # open loop: batches whose time has come, not yet made
    uint64_t scheduled
    bint queued
    uint8_t inbox[INBOX_BYTES]
    size_t used

ctypedef struct Run:
    int ep
    Protocol protocol
    const uint8_t *copies           # the same batch several times over
    size_t batch_bytes
    uint32_t copies_n
    uint32_t records                # in a batch
    uint32_t window
    uint32_t ring_mask
    double rate                     # batches a second; 0: closed loop
    bint spin
    Peer *peers
    int peers_n
    Peer **queue
    int queue_n
    uint64_t released
    uint64_t start_ns, seconds_ns, settle_ns, drain_ns, end_ns, done_ns
    uint64_t batches_max
    uint64_t batches, records_failed, acked_at_end
    bint draining, incomplete
    const char *trouble
    int trouble_errno
    Histogram *latency
    uint64_t interval_ns
    uint64_t *sample_ns
    uint64_t *sample_batches
    int samples_n, samples_max


cdef void fail(Run *run, const char *why) noexcept nogil:
    if run.trouble == NULL:
        run.trouble = why
        run.trouble_errno = errno


cdef void fill(Run *run, Peer *p) noexcept nogil:
    """Makes and sends as many batches as window, clock and socket allow."""
    cdef ssize_t sent
    cdef uint32_t can, i
    cdef uint64_t now
    while True:
        while p.left:
            sent = send(p.fd, p.at, p.left, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN:
                    fail(run, "a connection broke")
                return
            p.at += sent
            p.left -= <size_t> sent
        can = min(run.window - (p.made - p.answered), run.copies_n)
        if run.rate > 0:
            can = min(can, p.due)
        elif run.draining:
            can = 0
        if not can:
            return
        now = now_ns()
        for i in range(can):
            if run.rate > 0:
                now = run.start_ns + <uint64_t> ((p.scheduled * <double> run.peers_n + p.tag) * 1e9 / run.rate)
                p.scheduled += 1
                p.due -= 1
            p.due_ns[(p.made + i) & run.ring_mask] = now
        p.made += can
        p.at = run.copies
        p.left = can * run.batch_bytes


cdef void acknowledge(Run *run, Peer *p, bint well, uint64_t now) noexcept nogil:
    """One record's answer."""
    cdef uint64_t due
    if p.made == p.answered:
        fail(run, "an answer to nothing")
        return
    run.records_failed += not well
    p.acks += 1
    if p.acks < run.records:
        return
    p.acks = 0
    due = p.due_ns[p.answered & run.ring_mask]
    p.answered += 1
    run.batches += 1
    if due >= run.start_ns + run.settle_ns:
        record(run.latency, now - due if now > due else 0)


cdef size_t resp(Run *run, Peer *p, uint8_t *at, size_t n, uint64_t now) noexcept nogil:
    """Takes one answer: a string (the entry's id), a line, or an error. How many bytes it had; 0 when it is not whole."""
    cdef uint8_t *end = <uint8_t *> memchr(at, c"\n", n)
    cdef size_t size
    if end == NULL:
        return 0
    size = <size_t> (end - at) + 1
    if at[0] == c"$" and at[1] != c"-":
        size += strtoul(<const char *> at + 1, NULL, 10) + 2
        if size > n:
            return 0
    acknowledge(run, p, at[0] == c"$", now)
    return size


cdef size_t nats(Run *run, Peer *p, uint8_t *at, size_t n, uint64_t now) noexcept nogil:
    """Takes one protocol message: an acknowledgement is a MSG whose JSON has no error. Its bytes; 0 when it is not whole."""
    cdef uint8_t *end = <uint8_t *> memchr(at, c"\n", n)
    cdef uint8_t *digits
    cdef size_t size, payload
    if end == NULL:
        return 0
    size = <size_t> (end - at) + 1
    if at[0] == c"M" or at[0] == c"H":
        digits = end - 1
        while digits > at and (digits - 1)[0] != c" ":
            digits -= 1
        payload = strtoul(<const char *> digits, NULL, 10)
        if n < size + payload + 2:
            return 0
        acknowledge(run, p, at[0] == c"M" and memmem(end + 1, payload, <const char *> b"\"error\"", 7) == NULL, now)
        size += payload + 2
    elif at[0] == c"P" and at[1] == c"I":
        if send(p.fd, <const char *> b"PONG\r\n", 6, MSG_NOSIGNAL) != 6:
            fail(run, "a PONG did not fit")
    elif at[0] == c"-":
        fail(run, "the server sent an error")
    return size


cdef void receive(Run *run, Peer *p) noexcept nogil:
    cdef size_t at, taken, room
    cdef ssize_t got
    cdef uint64_t now
    while run.trouble == NULL:
        room = INBOX_BYTES - p.used
        got = recv(p.fd, p.inbox + p.used, room, MSG_DONTWAIT)
        if got < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                fail(run, "a connection broke")
            return
        if got == 0:
            fail(run, "the server closed a connection")
            return
        p.used += <size_t> got
        now = now_ns()
        at = 0
        while at < p.used:
            if run.protocol == RESP:
                taken = resp(run, p, p.inbox + at, p.used - at, now)
            else:
                taken = nats(run, p, p.inbox + at, p.used - at, now)
            if not taken:
                break
            at += taken
        if at == 0 and p.used == INBOX_BYTES:
            fail(run, "an answer larger than the buffer")
        memmove(p.inbox, p.inbox + at, p.used - at)
        p.used -= at
        if <size_t> got < room:
            return


cdef inline void enqueue(Run *run, Peer *p) noexcept nogil:
    if not p.queued:
        p.queued = True
        run.queue[run.queue_n] = p
        run.queue_n += 1


cdef bint is_over(Run *run, uint64_t now) noexcept nogil:
    cdef int i
    if run.trouble != NULL:
        return True
    if not run.draining and (now - run.start_ns >= run.seconds_ns or (run.batches_max and run.batches >= run.batches_max)):
        run.draining = True
        run.end_ns = now
        run.acked_at_end = run.batches
    if not run.draining:
        return False
    for i in range(run.peers_n):
        if run.peers[i].made != run.peers[i].answered or run.peers[i].due:
            run.incomplete = now - run.end_ns > run.drain_ns
            return run.incomplete
    return True


cdef void loop(Run *run) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef uint64_t now, due
    cdef long long wait
    cdef int i, n
    cdef Peer *p
    bench_exact_timers()
    run.start_ns = now_ns()
    if run.rate == 0:
        for i in range(run.peers_n):
            enqueue(run, &run.peers[i])
    while True:
        now = now_ns()
        if run.samples_n < run.samples_max and now - run.start_ns >= <uint64_t> run.samples_n * run.interval_ns:
            run.sample_ns[run.samples_n] = now - run.start_ns
            run.sample_batches[run.samples_n] = run.batches
            run.samples_n += 1
        if run.rate > 0:
            due = <uint64_t> ((min(now, run.start_ns + run.seconds_ns) - run.start_ns) * run.rate / 1e9) + 1
            while run.released < due:
                p = &run.peers[run.released % <uint64_t> run.peers_n]
                p.due += 1
                enqueue(run, p)
                run.released += 1
        if is_over(run, now):
            break
        n = run.queue_n
        run.queue_n = 0
        for i in range(n):
            run.queue[i].queued = False
            fill(run, run.queue[i])
        wait = 100000000
        if run.rate > 0 and not run.draining:
            wait = min(wait, <long long> (run.start_ns + <uint64_t> (run.released * 1e9 / run.rate)) - <long long> now_ns())
        if run.spin or run.queue_n or wait < SPIN_NS:
            wait = 0
        else:
            wait -= SPIN_NS // 2
        n = bench_wait(run.ep, events, EVENTS, wait)
        if n < 0 and errno != EINTR:
            fail(run, "waiting failed")
        for i in range(n):
            p = &run.peers[events[i].data.u32]
            if events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP):
                receive(run, p)
            enqueue(run, p)
    run.done_ns = now_ns()


def run(str protocol, list descriptors, bytes batch, int records, *, int window, double rate, double seconds, double settle_seconds,
        double drain_seconds, double interval_seconds, uint64_t batches_max, bint spin):
    """Sends `batch` (the bytes of `records` commands, each of which is answered) again and again over the connections; counters as a dict.

    `protocol`: "resp" or "nats". `descriptors`: connected, non-blocking, greeted. Raises MemoryError, ValueError, OSError.
    """
    cdef Run r
    cdef uint32_t ring = 1
    cdef uint8_t *copies = NULL
    cdef const unsigned char *view = batch
    cdef int i
    memset(&r, 0, sizeof(Run))
    r.ep = -1
    if protocol not in ("resp", "nats") or not batch or records < 1 or not 1 <= window <= 65536 or not descriptors:
        raise ValueError("a protocol, a batch, a window and connections are needed")
    while ring < <uint32_t> window:
        ring *= 2
    r.protocol = RESP if protocol == "resp" else NATS
    r.batch_bytes = len(batch)
    r.copies_n = <uint32_t> max(<size_t> 1, min(<size_t> window, <size_t> COPIES_BYTES // r.batch_bytes))
    r.records = records
    r.window = window
    r.ring_mask = ring - 1
    r.rate = rate
    r.spin = spin
    r.peers_n = len(descriptors)
    r.seconds_ns = <uint64_t> (seconds * 1e9)
    r.settle_ns = <uint64_t> (settle_seconds * 1e9)
    r.drain_ns = <uint64_t> (drain_seconds * 1e9)
    r.interval_ns = <uint64_t> (interval_seconds * 1e9)
    r.batches_max = batches_max
    r.samples_max = <int> ((seconds + drain_seconds) / interval_seconds) + 2
    try:
        copies = <uint8_t *> malloc(r.copies_n * r.batch_bytes)
        r.peers = <Peer *> calloc(r.peers_n, sizeof(Peer))
        r.queue = <Peer **> calloc(r.peers_n, sizeof(Peer *))
        r.latency = <Histogram *> calloc(1, sizeof(Histogram))
        r.sample_ns = <uint64_t *> calloc(r.samples_max, sizeof(uint64_t))
        r.sample_batches = <uint64_t *> calloc(r.samples_max, sizeof(uint64_t))
        if (copies == NULL or r.peers == NULL or r.queue == NULL or r.latency == NULL or r.sample_ns == NULL
                or r.sample_batches == NULL):
            raise MemoryError
        for i in range(<int> r.copies_n):
            memcpy(copies + i * r.batch_bytes, view, r.batch_bytes)
        r.copies = copies
        r.ep = epoll_create1(0)
        if r.ep < 0:
            raise OSError(errno, "epoll_create1")
        for i in range(r.peers_n):
            r.peers[i].fd = descriptors[i]
            r.peers[i].tag = <uint32_t> i
            r.peers[i].due_ns = <uint64_t *> calloc(ring, sizeof(uint64_t))
            if r.peers[i].due_ns == NULL:
                raise MemoryError
            if bench_watch(r.ep, r.peers[i].fd, i):
                raise OSError(errno, "epoll_ctl")
        with nogil:
            loop(&r)
        trouble = ""
        if r.trouble != NULL:
            trouble = r.trouble.decode()
            if r.trouble_errno:
                trouble += f" ({strerror(r.trouble_errno).decode()})"
        return {
            "trouble": trouble,
            "incomplete": bool(r.incomplete),
            "seconds": ((r.end_ns or r.done_ns) - r.start_ns) / 1e9,
            "batches_acked": r.batches,
            "batches_acked_in_time": r.acked_at_end if r.end_ns else r.batches,
            "records_failed": r.records_failed,
            "ack": histogram_summary(r.latency),
            "series": [[r.sample_ns[i] / 1e9, r.sample_batches[i], 0] for i in range(r.samples_n)],
        }
    finally:
        if r.ep >= 0:
            close(r.ep)
        for i in range(r.peers_n):
            if r.peers != NULL:
                free(r.peers[i].due_ns)
        free(copies)
        free(r.peers)
        free(r.queue)
        free(r.latency)
        free(r.sample_ns)
        free(r.sample_batches)
