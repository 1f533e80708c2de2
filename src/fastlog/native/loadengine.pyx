"""The loop: all connections of a run on one thread, edge-triggered epoll, no GIL from the first request to the last answer."""
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strerror
from posix.unistd cimport close

from fastlog.native.loadclock cimport now_ns, wall_ms
from fastlog.native.loadconsume cimport Consumer, Drain, consumer_ask, consumer_free, consumer_init, consumer_receive
from fastlog.native.loadhistogram cimport Histogram, histogram_since, histogram_summary
from fastlog.native.loadpoll cimport (
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLRDHUP, EVENTS, SPIN_NS, bench_exact_timers, bench_wait, bench_watch, epoll_create1, epoll_event,
)
from fastlog.native.loadproduce cimport (
    ERRORS, FAILED, Load, NO_TROUBLE, Producer, Trouble, producer_fill, producer_free, producer_in_flight,
    producer_init, producer_receive,
)
from fastlog.native.loadtemplate cimport Templates, templates_free, templates_make

cdef enum:
    CONSUMER_TAG = 1 << 31

ctypedef struct Sample:
    uint64_t at_ns                  # since the start
    uint64_t batches_acked
    uint64_t batches_read
    uint64_t p50_ns                 # of what was acknowledged (or else read) since the last sample
    uint64_t p99_ns

ctypedef struct Run:
    int ep
    Load *load
    Producer *producers
    int producers_n
    Drain *drain
    Consumer *consumers
    int consumers_n
    int copies                      # how often the consumers together read each partition
    bint spin                       # never sleep: the time of a wake-up is not the broker's
    uint64_t seconds_ns
    uint64_t settle_ns              # at the start, left out of the latencies
    uint64_t batches_max            # acknowledged; then the run ends early; 0: no limit
    uint64_t drain_ns_max           # after the end, for what is in flight
    uint64_t interval_ns
    Sample *samples
    int samples_n
    int samples_max
    Histogram *seen                 # latencies at the last sample
    Producer **queue                # connections to fill
    int queue_n
    uint64_t released               # open loop: requests whose time has come, over all connections
    uint64_t start_ns
    uint64_t end_ns                 # when requests ceased
    uint64_t acked_at_end           # batches, for the throughput
    uint64_t read_at_end
    uint64_t done_ns                # when the last answer was in
    bint draining
    bint incomplete                 # answers or records were missing when the drain's time was up
    Trouble trouble
    int trouble_errno
    int trouble_at


cdef inline void enqueue(Run *run, Producer *p) noexcept nogil:
    if not p.queued:
        p.queued = True
        run.queue[run.queue_n] = p
        run.queue_n += 1


cdef void stop(Run *run, Trouble trouble, int at) noexcept nogil:
    if trouble != NO_TROUBLE and run.trouble == NO_TROUBLE:
        run.trouble = trouble
        run.trouble_errno = errno
        run.trouble_at = at


cdef void sample(Run *run, uint64_t now) noexcept nogil:
    cdef Sample *s
    if run.samples_n < run.samples_max and now - run.start_ns >= <uint64_t> run.samples_n * run.interval_ns:
        s = &run.samples[run.samples_n]
        s.at_ns = now - run.start_ns
        s.batches_acked = run.load.batches_acked
        s.batches_read = run.drain.batches
        histogram_since(run.load.latency if run.producers_n else run.drain.latency, run.seen, &s.p50_ns, &s.p99_ns)
        run.samples_n += 1


cdef void release_due(Run *run, uint64_t now) noexcept nogil:
    """Open loop: tells connections of requests whose time has come."""
    cdef uint64_t due = <uint64_t> ((min(now, run.start_ns + run.seconds_ns) - run.start_ns) * run.load.rate / 1e9) + 1
    cdef Producer *p
    while run.released < due:
        p = &run.producers[run.released % <uint64_t> run.producers_n]
        p.due += 1
        enqueue(run, p)
        run.released += 1


cdef void fill_queued(Run *run, uint64_t now) noexcept nogil:
    cdef int i, n = run.queue_n
    cdef Producer *p
    run.load.wall_ms = wall_ms()
    run.queue_n = 0
    for i in range(n):
        p = run.queue[i]
        p.queued = False
        stop(run, producer_fill(p, now, run.draining), p.index)


cdef bint all_answered(Run *run) noexcept nogil:
    cdef int i
    cdef Producer *p
    for i in range(run.producers_n):
        p = &run.producers[i]
        if producer_in_flight(p) or p.due or p.pieces_used:
            return False
    return True


cdef bint all_finished(Run *run) noexcept nogil:
    cdef int i
    for i in range(run.consumers_n):
        if not run.consumers[i].finished:
            return False
    return True


cdef bint is_over(Run *run, uint64_t now) noexcept nogil:
    """Moves from load to drain to the end."""
    cdef bint ended = now - run.start_ns >= run.seconds_ns
    if run.trouble != NO_TROUBLE:
        return True
    if run.batches_max and run.load.batches_acked >= run.batches_max:
        ended = True
    if not run.producers_n and all_finished(run):
        ended = True
    if ended and not run.draining:
        run.draining = True
        run.end_ns = now
        run.acked_at_end = run.load.batches_acked
        run.read_at_end = run.drain.batches
    if not run.draining:
        return False
    if not run.producers_n:
        return True
    if all_answered(run) and (not run.consumers_n or run.drain.batches >= run.load.batches_acked * <uint64_t> run.copies):
        return True
    if now - run.end_ns > run.drain_ns_max:
        run.incomplete = True
        return True
    return False


cdef long long wait_ns(Run *run, uint64_t now) noexcept nogil:
    cdef long long left = 100000000
    cdef long long due
    if run.spin or run.queue_n:
        return 0
    if run.load.rate > 0 and not run.draining:
        due = <long long> (run.start_ns + <uint64_t> (run.released * 1e9 / run.load.rate)) - <long long> now
        left = min(left, due)
    if not run.draining:
        left = min(left, <long long> (run.start_ns + run.seconds_ns) - <long long> now)
    return 0 if left < SPIN_NS else left - SPIN_NS // 2


cdef void handle(Run *run, const epoll_event *event) noexcept nogil:
    cdef uint32_t tag = event.data.u32
    cdef Producer *p
    if tag & CONSUMER_TAG:
        tag &= ~<uint32_t> CONSUMER_TAG
        if event.events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP):
            stop(run, consumer_receive(&run.consumers[tag], run.draining and not run.producers_n), <int> tag)
        return
    p = &run.producers[tag]
    if event.events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP):
        stop(run, producer_receive(p), p.index)
    enqueue(run, p)


cdef void loop(Run *run) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef uint64_t now
    cdef int i, n
    bench_exact_timers()
    run.start_ns = now_ns()
    run.load.start_ns = run.start_ns
    run.load.record_from_ns = run.start_ns + run.settle_ns
    run.drain.record_from_ns = run.load.record_from_ns
    for i in range(run.consumers_n):
        stop(run, consumer_ask(&run.consumers[i]), i)
    if run.load.rate == 0:
        for i in range(run.producers_n):
            enqueue(run, &run.producers[i])
    while True:
        now = now_ns()
        sample(run, now)
        # Before the end is looked at: what came due during a pause of this thread is sent and counted too.
        if run.load.rate > 0 and run.producers_n:
            release_due(run, now)
        if is_over(run, now):
            break
        if run.queue_n:
            fill_queued(run, now)
        n = bench_wait(run.ep, events, EVENTS, wait_ns(run, now_ns()))
        if n < 0:
            if errno == EINTR:
                continue
            stop(run, FAILED, -1)
            break
        for i in range(n):
            handle(run, &events[i])
    run.done_ns = now_ns()


cdef dict errors_of(const uint64_t *counts):
    """Error codes with their counts; 0 is no error."""
    return {code: counts[code + 1] for code in range(-1, ERRORS - 1) if code != 0 and counts[code + 1]}


def run(plan):
    """Runs a `fastlog.loadgen.job.Plan` to its end and returns its counters as a dict.

    Raises MemoryError, ValueError for a plan that contradicts itself, OSError when epoll fails.
    """
    cdef Run r
    cdef Load load
    cdef Drain drain
    cdef Templates templates
    cdef Histogram *histograms = <Histogram *> calloc(4, sizeof(Histogram))
    cdef bytes prefix = plan.produce_prefix
    cdef bytes item = plan.produce_item
    cdef int i
    memset(&r, 0, sizeof(Run))
    memset(&load, 0, sizeof(Load))
    memset(&drain, 0, sizeof(Drain))
    memset(&templates, 0, sizeof(Templates))
    r.ep = -1
    try:
        if histograms == NULL:
            raise MemoryError
        templates_make(&templates, plan.records, plan.record_bytes, plan.fillings, plan.seed, plan.codec, plan.sections)
        if templates.batch_bytes != plan.batch_bytes:
            raise ValueError(f"a batch has {templates.batch_bytes} bytes, the plan says {plan.batch_bytes}")
        load.templates = drain.templates = &templates
        load.latency = &histograms[0]
        drain.end_to_end = &histograms[1]
        drain.latency = &histograms[2]
        r.seen = &histograms[3]
        load.connections = len(plan.producers)
        load.partitions = plan.partitions
        load.batches = plan.batches_per_request
        load.window = plan.window
        load.topic_ids = plan.produce_version >= 13
        load.answered = plan.acks != 0
        load.rate = plan.rate
        load.prefix = prefix
        load.prefix_bytes = len(prefix)
        load.item = item
        load.item_bytes = len(item)
        load.request_bytes = load.prefix_bytes + load.batches * (load.item_bytes + templates.batch_bytes + 1) + 2
        drain.topic_ids = plan.fetch_version >= 13
        drain.check_contents = plan.check_contents
        drain.rewind = plan.rewind
        r.load = &load
        r.drain = &drain
        r.producers_n = load.connections
        r.consumers_n = len(plan.consumers)
        r.copies = plan.copies
        r.spin = plan.spin
        r.seconds_ns = <uint64_t> (plan.seconds * 1e9)
        r.settle_ns = <uint64_t> (plan.settle_seconds * 1e9)
        r.batches_max = plan.batches_max
        r.drain_ns_max = <uint64_t> (plan.drain_seconds * 1e9)
        r.interval_ns = <uint64_t> (plan.interval_seconds * 1e9)
        r.samples_max = <int> ((plan.seconds + plan.drain_seconds) / plan.interval_seconds) + 2
        r.ep = epoll_create1(0)
        if r.ep < 0:
            raise OSError(errno, "epoll_create1")
        r.producers = <Producer *> calloc(r.producers_n + 1, sizeof(Producer))
        r.consumers = <Consumer *> calloc(r.consumers_n + 1, sizeof(Consumer))
        r.queue = <Producer **> calloc(r.producers_n + 1, sizeof(Producer *))
        r.samples = <Sample *> calloc(r.samples_max, sizeof(Sample))
        if r.producers == NULL or r.consumers == NULL or r.queue == NULL or r.samples == NULL:
            raise MemoryError
        for i in range(r.producers_n):
            fd, producer_id, producer_epoch = plan.producers[i]
            producer_init(&r.producers[i], &load, i, fd, producer_id, producer_epoch)
            if bench_watch(r.ep, fd, i):
                raise OSError(errno, "epoll_ctl")
        for i in range(r.consumers_n):
            fd, request, offset_at, ids, first, until = plan.consumers[i]
            consumer_init(&r.consumers[i], &drain, fd, request, offset_at, ids, first, until, plan.fetch_inbox_bytes)
            if bench_watch(r.ep, fd, CONSUMER_TAG | i):
                raise OSError(errno, "epoll_ctl")
        with nogil:
            loop(&r)
        return outcome(&r)
    finally:
        if r.ep >= 0:
            close(r.ep)
        for i in range(r.producers_n):
            if r.producers != NULL:
                producer_free(&r.producers[i])
        for i in range(r.consumers_n):
            if r.consumers != NULL:
                consumer_free(&r.consumers[i])
        free(r.producers)
        free(r.consumers)
        free(r.queue)
        free(r.samples)
        free(histograms)
        templates_free(&templates)


cdef dict outcome(Run *r):
    trouble = ["", "the broker closed a connection", "a system call failed", "an answer could not be read",
               "an answer is larger than the buffer"][<int> r.trouble]
    if r.trouble == FAILED:
        trouble = f"{trouble}: {strerror(r.trouble_errno).decode()}"
    if r.trouble != NO_TROUBLE:
        trouble = f"{trouble} (connection {r.trouble_at})"
    return {
        "trouble": trouble,
        "incomplete": bool(r.incomplete),
        "seconds": (r.end_ns - r.start_ns if r.end_ns else r.done_ns - r.start_ns) / 1e9,
        "seconds_with_drain": (r.done_ns - r.start_ns) / 1e9,
        "requests": r.load.made,
        "requests_answered": r.load.answers,
        "batches_acked": r.load.batches_acked,
        "batches_acked_in_time": r.acked_at_end if r.end_ns else r.load.batches_acked,
        "batches_failed": r.load.batches_failed,
        "bytes_sent": r.load.bytes_sent,
        "disorder": r.load.disorder,
        "produce_errors": errors_of(r.load.errors),
        "ack": histogram_summary(r.load.latency),
        "fetches": r.drain.fetches,
        "fetches_empty": r.drain.empty,
        "batches_read": r.drain.batches,
        "batches_read_in_time": r.read_at_end if r.end_ns else r.drain.batches,
        "records_read": r.drain.records,
        "bytes_read": r.drain.bytes,
        "gaps": r.drain.gaps,
        "bad_crc": r.drain.bad_crc,
        "foreign": r.drain.foreign,
        "fetch_errors": errors_of(r.drain.errors),
        "fetch": histogram_summary(r.drain.latency),
        "end_to_end": histogram_summary(r.drain.end_to_end),
        "series": [
            [s.at_ns / 1e9, s.batches_acked, s.batches_read, round(s.p50_ns / 1000, 1), round(s.p99_ns / 1000, 1)]
            for s in r.samples[:r.samples_n]
        ],
    }
