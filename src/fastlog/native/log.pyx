"""A partition's log: the door's functions, and the store's turn. See log.pxd; the work is done in the rooms behind it."""
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from fastlog.native.accept cimport accept_append, accept_chunk_line, accept_parked, tail_evicting
from fastlog.native.arena cimport arena_close, arena_open
from fastlog.native.checkpoint cimport checkpoint_owed, checkpoint_step, checkpoint_turn
from fastlog.native.control cimport control_open, control_start, control_step, log_free
from fastlog.native.flaws cimport flaws_count, flaws_listen, flaws_unlisten
from fastlog.native.flushgroup cimport flushgroups_free, flushgroups_step
from fastlog.native.loadline cimport loadlines_free
from fastlog.native.producers cimport producers_expire, producers_in_txn
from fastlog.native.promise cimport promise_doubt
from fastlog.native.read cimport loads_free, read_release, read_start, reads_retry, reads_unstarve
from fastlog.native.relics cimport RelicSet, relicset_drop, relicset_open
from fastlog.native.slab cimport slab_free
from fastlog.native.store cimport LogState, StoreState, clock_ms, clock_ns, log_moved
from fastlog.native.timequery cimport timequeries_retry, timequery_start
from fastlog.native.timer cimport timer_arm, timers_free, timers_init, timers_next, timers_run
from fastlog.native.verify cimport verify_ask, verify_expire
from fastlog.native.work cimport work_reap
from fastlog.native.write cimport write_ended, write_next, writes_free

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint)

cdef extern from *:
    """
    #include <sched.h>
    #include <sys/resource.h>
    static int64_t fl_open_files(void)
    {
        struct rlimit r;
        return getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur > 1 << 20 ? 1 << 20 : (int64_t) r.rlim_cur;
    }
    """
    int64_t fl_open_files() nogil
    int sched_yield() nogil

cdef enum:
    OPEN_SEGMENTS_MIN = 64
    OPEN_SEGMENTS_SHARE = 16        # of the descriptors that the process may have
    PRODUCER_EXPIRES_MS = 86400000  # Kafka's default of producer.id.expiration.ms
    EXPIRE_EVERY_MS = 600000        # or as often as producer ids expire
    CHECKPOINT_BYTES = 134217728
    WATCH_ARMED = 1
    WATCH_FIRING = 2

cdef int64_t UNCHECKED_MAX = 34359738368

cdef struct Store:
    StoreState state                # first: a Store * is a StoreState *

cdef struct Log:
    LogState state                  # first

cdef struct Relics:
    RelicSet set                    # first


cdef inline StoreState *inside(const Store *store) noexcept nogil:
    return <StoreState *> store


cdef inline LogState *log_of(const Partition *part) noexcept nogil:
    return <LogState *> part.log


cdef int relics_open(Relics **out, const char **paths, int n, char *why, size_t why_len) noexcept nogil:
    return relicset_open(<RelicSet **> out, paths, n, why, why_len)


cdef void relics_drop(Relics *relics) noexcept nogil:
    relicset_drop(<RelicSet *> relics)


cdef int64_t relics_bytes(const Relics *relics) noexcept nogil:
    return (<const RelicSet *> relics).bytes if relics != NULL else 0


cdef int store_open(Store **out, const StoreConfig *config, char *why, size_t why_len) noexcept nogil:
    cdef StoreState *s = <StoreState *> calloc(1, sizeof(Store))
    cdef int err
    if s == NULL:
        snprintf(why, why_len, "out of memory")
        return -12
    s.config = <StoreConfig *> malloc(sizeof(StoreConfig))
    s.stats = <StoreStats *> calloc(1, sizeof(StoreStats))
    if s.config == NULL or s.stats == NULL:
        snprintf(why, why_len, "out of memory")
        free(s.config)
        free(s.stats)
        free(s)
        return -12
    s.config[0] = config[0]
    if s.config.checkpoint_bytes <= 0:
        s.config.checkpoint_bytes = CHECKPOINT_BYTES
    if s.config.unchecked_max <= 0:
        s.config.unchecked_max = UNCHECKED_MAX
    err = arena_open(&s.arena, config.memory, config.arena_path, config.shard, config.pool, config.home, tail_evicting, why, why_len)
    if err:
        free(s.config)
        free(s.stats)
        free(s)
        return err
    timers_init(&s.timers)
    if s.config.producer_expires_ms <= 0:
        s.config.producer_expires_ms = PRODUCER_EXPIRES_MS
    expire_later(s, clock_ns())
    s.write_flushed = write_ended
    s.flaws_seen = flaws_count()
    flaws_listen(config.ring)
    s.dirty_max = <int64_t> (config.memory // 4)
    s.open_max = <int32_t> (fl_open_files() // OPEN_SEGMENTS_SHARE)
    if s.open_max < OPEN_SEGMENTS_MIN:
        s.open_max = OPEN_SEGMENTS_MIN
    s.index_bytes_max = config.memory // 16
    s.producers_max = config.memory // 16384
    if s.producers_max < 4096:
        s.producers_max = 4096
    out[0] = <Store *> s
    return 0


cdef void release(StoreState *s, bint leave) noexcept nogil:
    flaws_unlisten(s.config.ring)
    flushgroups_free(s)
    loadlines_free(s)
    loads_free(s)
    writes_free(s)
    slab_free(&s.pins, &s.pins_n)
    timers_free(&s.timers)
    arena_close(s.arena, leave)
    free(s.config)
    free(s.stats)
    free(s)


cdef void store_close(Store *store) noexcept nogil:
    cdef StoreState *s = inside(store)
    FL_ASSERT(s.logs == NULL and s.opens == 0)
    while s.arena.growing:
        work_reap(s.config.home)
        sched_yield()
    release(s, False)


cdef void store_abandon(Store *store) noexcept nogil:
    cdef StoreState *s = inside(store)
    cdef LogState *log = s.logs
    cdef int32_t i
    cdef uint32_t k
    for k in range(s.arena.ready):
        s.arena.chunks[k].header = NULL     # what they say stays said
    while s.logs != NULL:
        log = s.logs
        for i in range(log.segments_n):
            log.segments[i].users = 0
            log.segments[i].opening = False
        log_free(log)
    s.arena.growing = False
    release(s, True)


# ---- the turn

cdef void step(LogState *log) noexcept nogil:
    cdef StoreState *s = log.store
    if log.active == NULL:
        return
    if log.parked != NULL:
        accept_parked(log)
    if log.reads_due:
        reads_retry(log)
        if log.queries != NULL:
            timequeries_retry(log)
    checkpoint_step(log)
    write_next(log)
    if log.durable < log.end and log.flush.timer.slot == 0 and log.settings.flush_ms < <int64_t> 1 << 40:
        timer_arm(&s.timers, &log.flush.timer, s.now_ns + log.settings.flush_ms * 1000000)
    if log.controls != NULL:
        control_step(log)


cdef inline bint watch_due(const Watch *w) noexcept nogil:
    cdef int64_t at = w.part.at.last_stable if w.committed else w.part.at.high_watermark
    return at > w.past or w.part.at.offline != 0 or log_of(w.part).closing != 0


cdef void watch_remove(Watch *w, Watch **first) noexcept nogil:
    if w.prev != NULL:
        w.prev.next = w.next
    else:
        first[0] = w.next
    if w.next != NULL:
        w.next.prev = w.prev
    w.next = NULL
    w.prev = NULL
    w.armed = 0


cdef void watch_insert(Watch *w, Watch **first, int armed) noexcept nogil:
    w.prev = NULL
    w.next = first[0]
    if w.next != NULL:
        w.next.prev = w
    first[0] = w
    w.armed = armed


cdef void fire(StoreState *s) noexcept nogil:
    """Calls watches whose partition moved past them. They are set aside first, as `fired` may arm and disarm others."""
    cdef LogState *log
    cdef Watch *w
    cdef Watch *following
    while s.fire != NULL:
        log = s.fire
        s.fire = log.fire_next
        log.firing = False
        w = log.part.watches
        while w != NULL:
            following = w.next
            if watch_due(w):
                watch_remove(w, &log.part.watches)
                watch_insert(w, &s.firing, WATCH_FIRING)
            w = following
    while s.firing != NULL:
        w = s.firing
        watch_remove(w, &s.firing)
        w.fired(w)


cdef void expire_later(StoreState *s, int64_t now_ns) noexcept nogil:
    cdef int64_t wait = position_get(&s.config.producer_expires_ms)
    s.expire_after = now_ns + (wait * 1000000 if wait < EXPIRE_EVERY_MS else <int64_t> EXPIRE_EVERY_MS * 1000000)


cdef void expire(StoreState *s) noexcept nogil:
    """Forgets producers that were idle too long."""
    cdef LogState *log = s.logs
    cdef int64_t before = clock_ms() - position_get(&s.config.producer_expires_ms)
    expire_later(s, s.now_ns)
    while log != NULL:
        s.producers_n -= log.producers.count
        producers_expire(&log.producers, before)
        s.producers_n += log.producers.count
        verify_expire(&log.verifications, before)
        log = log.all_next


cdef void store_expire_producers(Store *store, int64_t after_ms) noexcept nogil:
    cdef StoreState *s = inside(store)
    position_set(&s.config.producer_expires_ms, after_ms)
    position_set(&s.expire_after, 0)        # the owner looks in its next turn


cdef int64_t store_tick(Store *store, int64_t now_ns) noexcept nogil:
    cdef StoreState *s = inside(store)
    cdef LogState *log
    cdef LogState *last
    cdef int64_t due
    s.now_ns = now_ns
    if s.arena.released != s.released_seen:
        s.released_seen = s.arena.released
        if s.chunk_line != NULL:
            accept_chunk_line(s)
        if s.starved != NULL:
            reads_unstarve(s)
    timers_run(&s.timers, now_ns)
    if flaws_count() != s.flaws_seen:
        promise_doubt(s)
    if now_ns >= position_get(&s.expire_after):
        expire(s)
    checkpoint_turn(s)
    last = s.ready_last
    while s.ready != NULL:                  # those that were ready when the turn began
        log = s.ready
        s.ready = log.ready_next
        if s.ready == NULL:
            s.ready_last = NULL
        log.ready = False
        due = log == last
        step(log)
        if due:
            break
    if s.groups != NULL:
        flushgroups_step(s)
    fire(s)
    if s.ready != NULL or s.fire != NULL:
        return 0
    if s.arena.released != s.released_seen and (s.chunk_line != NULL or s.starved != NULL):
        return 0
    due = timers_next(&s.timers)
    if due < 0:
        return -1
    return due - now_ns if due > now_ns else 0


cdef void store_stats(const Store *store, StoreStats *out) noexcept nogil:
    cdef StoreState *s = inside(store)
    cdef int64_t unchecked = checkpoint_owed(s)
    out[0] = s.stats[0]
    out.chunks = s.arena.ready
    out.chunks_free = s.arena.free_count
    out.chunks_pinned = s.arena.pinned
    out.evictions = s.arena.evictions
    out.unchecked_bytes = <uint64_t> (unchecked if unchecked > 0 else 0)


# ---- requests

cdef void log_open(Store *store, LogOpen *o) noexcept nogil:
    control_open(inside(store), o)


cdef void log_control(Store *store, LogCtl *c) noexcept nogil:
    control_start(log_of(c.part), c)


cdef void log_append(Store *store, Append *a) noexcept nogil:
    accept_append(log_of(a.part), a)


cdef uint64_t log_ask(Store *store, Partition *part, int64_t producer_id, int16_t epoch, int32_t sequence, bint bumps) noexcept nogil:
    cdef LogState *log = log_of(part)
    if log.closing or part.at.offline or producers_in_txn(&log.producers, producer_id, epoch):
        return 0
    return verify_ask(&log.verifications, producer_id, epoch, sequence, bumps, clock_ms())


cdef void log_read(Store *store, Read *r) noexcept nogil:
    read_start(log_of(r.part), r)


cdef void log_release(Store *store, Read *r) noexcept nogil:
    read_release(inside(store), r)


cdef void log_find_time(Store *store, TimeQuery *q) noexcept nogil:
    timequery_start(log_of(q.part), q)


cdef void log_watch(Store *store, Watch *w) noexcept nogil:
    FL_ASSERT(not w.armed)
    watch_insert(w, &w.part.watches, WATCH_ARMED)
    if watch_due(w):
        log_moved(log_of(w.part))


cdef void log_unwatch(Store *store, Watch *w) noexcept nogil:
    if w.armed == WATCH_ARMED:
        watch_remove(w, &w.part.watches)
    elif w.armed == WATCH_FIRING:
        watch_remove(w, &inside(store).firing)


cdef void partition_free(Store *store, Partition *part) noexcept nogil:
    FL_ASSERT(part.watches == NULL and log_of(part).active == NULL)
    log_free(log_of(part))
