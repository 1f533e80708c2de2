"""See shard.pxd."""
from libc.errno cimport EMFILE, ENFILE, ENOBUFS, ENOMEM
from libc.stdint cimport int16_t, int32_t, uint32_t, uint64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strerror

from fastlog.native.batch cimport BATCH_SCRATCH
from fastlog.native.buf cimport bufs_free, bufs_init
from fastlog.native.command cimport CMD_APPEND, CMD_CONTROL, CMD_DRAIN, CMD_FIND_TIME, CMD_FREE, CMD_LISTEN, CMD_OPEN, CMD_PUBLISH, \
    CMD_READ, CMD_STOP, CMD_UNLISTEN, CMD_UNPUBLISH, Command, Reply
from fastlog.native.conn cimport conn_close, conn_dirty, request_ready, response_plain, response_room, shard_log
from fastlog.native.conns cimport conn_open, conns_sweep
from fastlog.native.connsend cimport conns_turn
from fastlog.native.fetch cimport fetch_free, fetch_init, fetch_start
from fastlog.native.fetchread cimport fetch_read_done, fetch_read_here, fetch_release_here, fetch_released
from fastlog.native.fetchwait cimport fetch_fired, fetch_recheck, fetch_unwatch_here, fetch_unwatched, fetch_watch_here
from fastlog.native.log cimport Append, LogCtl, LogOpen, Pin, Read, TimeQuery, log_append, log_control, log_find_time, log_open, log_read, \
    log_release, partition_free, store_tick
from fastlog.native.mail cimport MailItem, mail_empty, mail_flush, mail_send, mail_take
from fastlog.native.net cimport LOG_ERROR, MAIL_APPEND, MAIL_APPENDED, MAIL_COMMAND, MAIL_COMMAND_DONE, MAIL_CONN, MAIL_FIRED, MAIL_READ, \
    MAIL_READ_DONE, MAIL_RELEASE, MAIL_RELEASED, MAIL_REPLY, MAIL_REQUEST, MAIL_TIME, MAIL_TIMED, MAIL_TXN_ASK, MAIL_TXN_ASKED, \
    MAIL_TXN_CHECKED, MAIL_UNWATCH, MAIL_UNWATCHED, \
    MAIL_WATCH, Conn, Request, SendVec, counter_add, counter_get
from fastlog.native.offsets cimport offsets_find_here, offsets_found, offsets_free, offsets_start
from fastlog.native.produce cimport produce_abandon, produce_append_here, produce_appended, produce_ask_here, produce_asked, \
    produce_checked, produce_free, produce_start
from fastlog.native.quota cimport QUOTA_REQUEST, quota_on
from fastlog.native.ring cimport OP_MORE, Op, ring_accept, ring_cancel, ring_wait, ring_wake
from fastlog.native.standing cimport Standing, standing_answers, standing_drop, standing_get, standing_keep, standing_set
from fastlog.native.table cimport table_free, table_init, table_put, table_remove, topic_drop
from fastlog.native.timer cimport Timer, timer_arm, timers_free, timers_init, timers_next, timers_run
from fastlog.native.work cimport work_reap

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *out)
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t write(int fd, const void *p, size_t n)

cdef extern from *:
    """
    #include <stdint.h>
    static inline int64_t fl_get_seq(int64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline void fl_set_seq(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    static inline int64_t fl_swap_seq(int64_t *p, int64_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
    static inline void fl_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

    #include <sched.h>
    #include <sys/resource.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    /* A short slice for the calling thread: when it wakes it is let in at once by whoever shares its core and has the usual, longer one
       (EEVDF; sched(7), sched_setattr(2)). Kernels before 6.12 take no notice; one that refuses leaves all as it was. */
    static inline void fl_short_slice(uint64_t ns)
    {
        struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; } a =
            {48, SCHED_OTHER, 0, getpriority(PRIO_PROCESS, 0), 0, ns, 0, 0};
        if (sched_getscheduler(0) == SCHED_OTHER)
            syscall(SYS_sched_setattr, 0, &a, 0);
    }
    """
    void short_slice "fl_short_slice"(uint64_t ns) noexcept nogil
    int64_t get_seq "fl_get_seq"(int64_t *p) noexcept nogil
    void set_seq "fl_set_seq"(int64_t *p, int64_t v) noexcept nogil
    int64_t swap_seq "fl_swap_seq"(int64_t *p, int64_t v) noexcept nogil
    void fence "fl_fence"() noexcept nogil

cdef enum:
    SWEEP_NS = 1000000000
    SLICE_NS = 100000               # the least there is
    ACCEPT_PAUSE_NS = 100000000     # after running out of descriptors or memory
    MAIL_BURST = 512                # items of one box in one turn: the others get theirs

cdef struct Listener:
    Op op                           # first: an Op is its Listener
    Timer timer
    Shard *shard
    int fd
    uint32_t index
    bint ending
    Listener *next

cdef struct Inner:                  # what only this room knows of its shard
    Listener *listeners
    Timer sweep
    Shard *shard
    uint64_t accept_mask
    int64_t dealt[64]
    Command *draining
    int next_deal


cdef int shard_init(Shard *shard, const ShardConfig *config) noexcept nogil:
    bufs_init(&shard.bufs, config.buffers_max)
    timers_init(&shard.timers)
    shard.dispatch = dispatch
    shard.scratch = malloc(BATCH_SCRATCH)
    if shard.scratch == NULL or table_init(&shard.table) < 0:
        return -ENOMEM
    fetch_init()
    return 0


cdef void shard_free(Shard *shard) noexcept nogil:
    cdef SendVec *vec
    cdef Request *r
    fetch_free(shard)
    produce_free(shard)
    offsets_free(shard)
    table_free(&shard.table)
    timers_free(&shard.timers)
    bufs_free(&shard.bufs)
    while shard.vec_free != NULL:
        vec = shard.vec_free
        shard.vec_free = vec.next
        free(vec)
    while shard.request_free != NULL:
        r = shard.request_free
        shard.request_free = r.next
        free(r)
    free(shard.scratch)
    shard.scratch = NULL


cdef void shard_wake(Shard *shard) noexcept nogil:
    fence()
    if get_seq(&shard.sleeping):
        ring_wake(shard.ring)


# ---- the loop ------------------------------------------------------------------------------------------------------------------

cdef void look_at_clock(Shard *shard) noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    shard.now_ns = <int64_t> t.tv_sec * 1000000000 + t.tv_nsec
    clock_gettime(CLOCK_REALTIME, &t)
    shard.now_ms = <int64_t> t.tv_sec * 1000 + t.tv_nsec // 1000000


cdef void shard_run(Shard *shard, const ShardConfig *config) noexcept nogil:
    cdef Inner inner
    cdef int64_t timeout, due
    cdef int i
    short_slice(SLICE_NS)
    inner.listeners = NULL
    inner.draining = NULL
    inner.accept_mask = config.accept_mask
    inner.next_deal = 0
    inner.shard = shard
    shard.inner = &inner
    for i in range(64):
        inner.dealt[i] = 0
    inner.sweep.slot = 0
    inner.sweep.fired = sweep
    shard.leaving = NULL
    look_at_clock(shard)
    timer_arm(&shard.timers, &inner.sweep, shard.now_ns + SWEEP_NS)
    while not shard.stop:
        read_mail(shard, &inner)
        work_reap(shard.home)
        timers_run(&shard.timers, shard.now_ns)
        check_leaving(shard)
        if inner.draining != NULL and shard.conns == NULL:
            command_done(inner.draining)
            inner.draining = NULL
        conns_turn(shard)
        timeout = store_tick(shard.store, shard.now_ns)
        due = timers_next(&shard.timers)
        if due >= 0:
            due = due - shard.now_ns if due > shard.now_ns else 0
            if timeout < 0 or due < timeout:
                timeout = due
        send_mail(shard)
        set_seq(&shard.sleeping, 1)
        if shard.dirty != NULL or shard.out_dirty or has_mail(shard):
            timeout = 0
        ring_wait(shard.ring, timeout)
        set_seq(&shard.sleeping, 0)
        look_at_clock(shard)
        counter_add(&shard.counters.turns, 1)
    end(shard, &inner)


cdef void end(Shard *shard, Inner *inner) noexcept nogil:
    """Closes what is left; the partitions were closed before."""
    cdef Listener *listener
    cdef int turns = 0
    produce_abandon(shard)
    while shard.conns != NULL and turns < 10000:
        close_all(shard)
        read_mail(shard, inner)
        work_reap(shard.home)
        timers_run(&shard.timers, shard.now_ns)
        conns_turn(shard)
        store_tick(shard.store, shard.now_ns)
        send_mail(shard)
        if shard.conns == NULL:
            break
        ring_wait(shard.ring, 1000000)
        look_at_clock(shard)
        turns += 1
    send_mail(shard)
    while inner.listeners != NULL:
        listener = inner.listeners
        inner.listeners = listener.next
        free(listener)


cdef void close_all(Shard *shard) noexcept nogil:
    cdef Conn *c = shard.conns
    while c != NULL:
        conn_close(c, NULL, False)
        conn_dirty(c)
        c = c.next


cdef void sweep(Timer *t) noexcept nogil:
    cdef Inner *inner = <Inner *> (<char *> t - <size_t> &(<Inner *> NULL).sweep)
    conns_sweep(inner.shard)
    timer_arm(&inner.shard.timers, t, inner.shard.now_ns + SWEEP_NS)


# ---- mail ----------------------------------------------------------------------------------------------------------------------

cdef bint has_mail(Shard *shard) noexcept nogil:
    cdef int i
    for i in range(shard.n + 1):
        if i != shard.index and not mail_empty(shard.inbox[i]):
            return True
    return False


cdef void send_mail(Shard *shard) noexcept nogil:
    cdef int i
    cdef uint64_t one = 1
    cdef bint waiting = False
    if not shard.out_dirty:
        return
    for i in range(shard.n + 1):
        if i != shard.index and mail_flush(shard.out[i]):
            waiting = True
    fence()
    for i in range(shard.n):
        if i != shard.index and not mail_empty(shard.out[i]) and get_seq(&shard.peers[i].sleeping):
            ring_wake(shard.peers[i].ring)
    if not mail_empty(shard.out[shard.n]) and swap_seq(shard.control_awake, 1) == 0:
        write(shard.control_fd, &one, 8)
    shard.out_dirty = waiting


cdef void read_mail(Shard *shard, Inner *inner) noexcept nogil:
    cdef MailItem item
    cdef int i, burst
    for i in range(shard.n + 1):
        if i == shard.index:
            continue
        burst = MAIL_BURST
        while burst and mail_take(shard.inbox[i], &item):
            receive(shard, inner, &item)
            burst -= 1


cdef void receive(Shard *shard, Inner *inner, MailItem *item) noexcept nogil:
    cdef uint32_t kind = item.kind
    if kind == MAIL_APPEND:
        produce_append_here(shard, item.what)
    elif kind == MAIL_APPENDED:
        produce_appended(shard, item.what)
    elif kind == MAIL_READ:
        fetch_read_here(shard, item.what)
    elif kind == MAIL_READ_DONE:
        fetch_read_done(shard, item.what)
    elif kind == MAIL_RELEASE:
        fetch_release_here(shard, item.what)
    elif kind == MAIL_RELEASED:
        fetch_released(shard, item.what)
    elif kind == MAIL_WATCH:
        fetch_watch_here(shard, item.what)
    elif kind == MAIL_FIRED:
        fetch_fired(shard, item.what)
    elif kind == MAIL_UNWATCH:
        fetch_unwatch_here(shard, item.what)
    elif kind == MAIL_UNWATCHED:
        fetch_unwatched(shard, item.what)
    elif kind == MAIL_TIME:
        offsets_find_here(shard, item.what)
    elif kind == MAIL_TIMED:
        offsets_found(shard, item.what)
    elif kind == MAIL_TXN_ASK:
        produce_ask_here(shard, item.what)
    elif kind == MAIL_TXN_ASKED:
        produce_asked(shard, item.what)
    elif kind == MAIL_TXN_CHECKED:
        produce_checked(shard, item.what)
    elif kind == MAIL_CONN:
        if shard.draining or shard.stop:
            close(<int> <size_t> item.what)
        else:
            conn_open(shard, <int> <size_t> item.what, item.number)
    elif kind == MAIL_REPLY:
        replied(shard, <Reply *> item.what, item.number)
    elif kind == MAIL_COMMAND:
        command(shard, inner, <Command *> item.what)


# ---- requests ------------------------------------------------------------------------------------------------------------------

cdef void dispatch(Request *r) noexcept nogil:
    cdef int16_t key = r.api_key, version = r.version
    cdef char text[96]
    if key > 2:
        if r.conn.standing != NULL and answer_stands(r):
            return
        counter_add(&r.shard.counters.handed_over, 1)
        mail_send(r.shard.out[r.shard.n], MAIL_REQUEST, 0, r)
        r.shard.out_dirty = 1
    elif key == 0 and 3 <= version <= 13:
        produce_start(r)
    elif key == 1 and 4 <= version <= 18:
        fetch_start(r)
    elif key == 2 and 1 <= version <= 11:
        offsets_start(r)
    else:
        snprintf(text, sizeof(text), "an unsupported version %d of API key %d", <int> version, <int> key)
        r.silent = True
        conn_close(r.conn, text, True)
        request_ready(r)


cdef const uint8_t *asked(const Request *r, uint32_t *n) noexcept nogil:
    """The request from behind its correlation id: client id, tags, body."""
    n[0] = r.frame_bytes - 12
    return r.body.end - n[0]


cdef bint answer_stands(Request *r) noexcept nogil:
    """Answers a request as it was answered before, if nothing has changed since. Not while a quota counts what requests cost."""
    cdef Standing *s = r.conn.standing
    cdef uint32_t n
    cdef const uint8_t *at = asked(r, &n)
    cdef uint8_t *room
    if not standing_answers(s, r.api_key, r.version, at, n) or quota_on(r.shard.quotas, QUOTA_REQUEST):
        return False
    standing_set(&s.seen_ms, r.shard.now_ns // 1000000)
    if not standing_get(&s.valid):
        standing_drop(s)
        r.conn.standing = NULL
        return False
    room = response_room(r, s.answered)
    if room != NULL:
        memcpy(room, s.data + n, s.answered)
        response_plain(r, s.answered)
    counter_add(&r.shard.counters.standing_answers, 1)
    request_ready(r)
    return True


cdef void keep_standing(Request *r, Standing *s, const Reply *reply) noexcept nogil:
    """The connection's one answer that stands is this one from now on."""
    cdef uint32_t n
    cdef const uint8_t *at = asked(r, &n)
    if not standing_keep(s, r.api_key, r.version, at, n, reply.data, reply.length):
        standing_drop(s)
        return
    if r.conn.standing != NULL:
        standing_drop(r.conn.standing)
    r.conn.standing = s


cdef void replied(Shard *shard, Reply *reply, uint32_t number) noexcept nogil:
    """number 1: `data` says why the connection is closed instead."""
    cdef Request *r = reply.request
    cdef uint8_t *room
    r.throttle_ms = reply.throttle_ms
    if number == 1:
        r.silent = True
        conn_close(r.conn, <char *> reply.data, True)
    else:
        room = response_room(r, reply.length)
        if room != NULL:
            memcpy(room, reply.data, reply.length)
            response_plain(r, reply.length)
    if reply.standing != NULL:
        keep_standing(r, reply.standing, reply)
    free(reply)
    request_ready(r)


# ---- listeners -----------------------------------------------------------------------------------------------------------------

cdef void accepted(Op *op) noexcept nogil:
    cdef Listener *listener = <Listener *> op
    cdef Shard *shard = listener.shard
    cdef char text[160]
    cdef int to
    if op.res >= 0:
        to = deal(<Inner *> shard.inner, shard)
        if to == shard.index:
            conn_open(shard, op.res, listener.index)
        else:
            mail_send(shard.out[to], MAIL_CONN, listener.index, <void *> <size_t> op.res)
            shard.out_dirty = 1
    if op.flags & OP_MORE or listener.ending:
        return
    if op.res < 0:
        if op.res == -EMFILE or op.res == -ENFILE or op.res == -ENOBUFS or op.res == -ENOMEM:
            snprintf(text, sizeof(text), "can't accept connections for now: %s", strerror(-op.res))
            shard_log(shard, LOG_ERROR, text)
        timer_arm(&shard.timers, &listener.timer, shard.now_ns + ACCEPT_PAUSE_NS)
    else:
        ring_accept(shard.ring, &listener.op, listener.fd)


cdef void accept_again(Timer *t) noexcept nogil:
    cdef Listener *listener = <Listener *> (<char *> t - <size_t> &(<Listener *> NULL).timer)
    if not listener.ending:
        ring_accept(listener.shard.ring, &listener.op, listener.fd)


cdef int deal(Inner *inner, Shard *shard) noexcept nogil:
    """The shard with the fewest connections, those on their way to it included."""
    cdef int i, at, best = shard.index
    cdef int64_t load, least = -1
    for i in range(shard.n):
        at = (i + inner.next_deal) % shard.n
        if not inner.accept_mask >> at & 1:
            continue
        load = counter_get(&shard.peers[at].counters.conns) + inner.dealt[at] \
            - counter_get(&shard.peers[at].counters.conns_accepted) - counter_get(&shard.peers[at].counters.conns_refused)
        if least < 0 or load < least:
            least = load
            best = at
    inner.dealt[best] += 1
    inner.next_deal = (best + 1) % shard.n
    return best


# ---- commands ------------------------------------------------------------------------------------------------------------------

cdef void command_done(Command *c) noexcept nogil:
    mail_send(c.shard.out[c.shard.n], MAIL_COMMAND_DONE, 0, c)
    c.shard.out_dirty = 1


cdef void opened(LogOpen *o) noexcept nogil:
    command_done(<Command *> (<char *> o - <size_t> &(<Command *> NULL).log))


cdef void controlled(LogCtl *o) noexcept nogil:
    command_done(<Command *> (<char *> o - <size_t> &(<Command *> NULL).control))


cdef void appended(Append *a) noexcept nogil:
    command_done(<Command *> (<char *> a - <size_t> &(<Command *> NULL).append))


cdef void timed(TimeQuery *q) noexcept nogil:
    command_done(<Command *> (<char *> q - <size_t> &(<Command *> NULL).time))


cdef void was_read(Read *r) noexcept nogil:
    """Copies what was read: it goes to Python, which keeps no pins."""
    cdef Command *c = <Command *> (<char *> r - <size_t> &(<Command *> NULL).read)
    cdef Pin *pin = r.pins
    cdef uint8_t *at
    if r.error == 0 and r.bytes:
        c.data = <uint8_t *> malloc(r.bytes)
        if c.data == NULL:
            r.error = 56
        else:
            c.data_length = r.bytes
            at = c.data
            while pin != NULL:
                memcpy(at, pin.base, pin.length)
                at += pin.length
                pin = pin.next
    log_release(c.shard.store, r)
    command_done(c)


cdef void command(Shard *shard, Inner *inner, Command *c) noexcept nogil:
    cdef int kind = c.kind
    c.shard = shard
    if kind == CMD_OPEN:
        c.log.done = opened
        log_open(shard.store, &c.log)
    elif kind == CMD_CONTROL:
        c.control.done = controlled
        log_control(shard.store, &c.control)
    elif kind == CMD_APPEND:
        c.append.done = appended
        log_append(shard.store, &c.append)
    elif kind == CMD_READ:
        c.read.done = was_read
        log_read(shard.store, &c.read)
    elif kind == CMD_FIND_TIME:
        c.time.done = timed
        log_find_time(shard.store, &c.time)
    elif kind == CMD_PUBLISH:
        c.error = -ENOMEM if table_put(&shard.table, c.topic) < 0 else 0
        if c.error:
            topic_drop(c.topic)
        c.topic = NULL
        fetch_recheck(shard)
        command_done(c)
    elif kind == CMD_UNPUBLISH:
        c.topic = table_remove(&shard.table, c.id)
        if c.topic == NULL:
            command_done(c)
            return
        c.next = <Command *> shard.leaving
        shard.leaving = c
        fetch_recheck(shard)
    elif kind == CMD_FREE:
        partition_free(shard.store, c.part)
        command_done(c)
    elif kind == CMD_LISTEN:
        listen_on(shard, inner, c)
        command_done(c)
    elif kind == CMD_UNLISTEN:
        unlisten(shard, inner)
        command_done(c)
    elif kind == CMD_DRAIN:
        shard.draining = True
        inner.draining = c
        drain(shard)
    elif kind == CMD_STOP:
        shard.stop = True
        command_done(c)


cdef void drain(Shard *shard) noexcept nogil:
    """Parked requests are answered now; a connection closes with its last answer."""
    cdef Conn *c = shard.conns
    cdef Request *r
    cdef Request *following
    while c != NULL:
        conn_dirty(c)
        r = c.first
        while r != NULL:
            following = r.next
            if r.state == 0 and r.abort != NULL:
                r.abort(r)
            r = following
        c = c.next


cdef void check_leaving(Shard *shard) noexcept nogil:
    cdef Command *c = <Command *> shard.leaving
    cdef Command *kept = NULL
    cdef Command *following
    cdef int32_t i
    cdef bint held
    if c == NULL:
        return
    shard.leaving = NULL
    while c != NULL:
        following = c.next
        held = False
        for i in range(c.topic.n):
            if c.topic.parts[i] != NULL and c.topic.parts[i].users[shard.index]:
                held = True
        if held:
            c.next = kept
            kept = c
        else:
            topic_drop(c.topic)
            c.topic = NULL
            command_done(c)
        c = following
    shard.leaving = kept


cdef void listen_on(Shard *shard, Inner *inner, Command *c) noexcept nogil:
    cdef Listener *listener = <Listener *> calloc(1, sizeof(Listener))
    if listener == NULL:
        c.error = -ENOMEM
        return
    listener.shard = shard
    listener.fd = <int> c.number
    listener.index = <uint32_t> c.index
    listener.op.done = accepted
    listener.timer.fired = accept_again
    listener.next = inner.listeners
    inner.listeners = listener
    ring_accept(shard.ring, &listener.op, listener.fd)


cdef void unlisten(Shard *shard, Inner *inner) noexcept nogil:
    cdef Listener *listener = inner.listeners
    while listener != NULL:
        listener.ending = True
        ring_cancel(shard.ring, &listener.op)
        listener = listener.next
