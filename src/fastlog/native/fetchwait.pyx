"""See fetchwait.pxd."""
from fastlog.native.fetchwork cimport FETCH_PARKED, FETCH_UNPARKING, FetchWork, first_part
from fastlog.native.log cimport Watch, log_unwatch, log_watch
from fastlog.native.mail cimport mail_send
from fastlog.native.net cimport MAIL_FIRED, MAIL_UNWATCH, MAIL_UNWATCHED, MAIL_WATCH, counter_add
from fastlog.native.session cimport WATCH_ENDING, WATCH_HERE, WATCH_NONE, WATCH_THERE, FetchPart
from fastlog.native.timer cimport Timer, timer_arm, timer_disarm


cdef void fetch_park(FetchWork *work) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchPart *p
    work.phase = FETCH_PARKED
    work.parked = True
    work.parked_prev = NULL
    work.parked_next = <FetchWork *> shard.parked
    if work.parked_next != NULL:
        work.parked_next.parked_prev = work
    shard.parked = work
    counter_add(&shard.counters.fetch_parked, 1)
    work.timer.fired = timed_out
    if timer_arm(&shard.timers, &work.timer, work.deadline_ns) < 0:
        work.wait = False
        fetch_unpark(work)
        return
    p = first_part(work)
    while p != NULL:
        p.watch.part = p.part
        p.watch.committed = work.committed
        p.watch.past = p.last_stable if work.committed else p.high_watermark
        p.part.users[shard.index] += 1
        p.held = True
        if p.part.owner == shard.index:
            p.watch.fired = fired_here
            p.watch_state = WATCH_HERE
            log_watch(shard.store, &p.watch)
        else:
            p.watch_state = WATCH_THERE
            work.outstanding += 1
            mail_send(shard.out[p.part.owner], MAIL_WATCH, 0, p)
            shard.out_dirty = 1
        p = p.next


cdef void timed_out(Timer *t) noexcept nogil:
    cdef FetchWork *work = <FetchWork *> t
    work.wait = False
    fetch_unpark(work)


cdef void fired_here(Watch *w) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> w
    p.watch_state = WATCH_NONE
    counter_add(&p.home.counters.fetch_woken, 1)
    fetch_unpark(<FetchWork *> p.work)


cdef void fetch_watch_here(Shard *owner, void *what) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> what
    p.watch.fired = fired_for_other
    log_watch(owner.store, &p.watch)


cdef void fired_for_other(Watch *w) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> w
    cdef Shard *owner = p.home.peers[w.part.owner]
    mail_send(owner.out[p.home.index], MAIL_FIRED, 0, p)
    owner.out_dirty = 1


cdef void fetch_fired(Shard *home, void *what) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> what
    cdef FetchWork *work = <FetchWork *> p.work
    if p.watch_state == WATCH_ENDING:
        return                      # the answer to our UNWATCH is on its way behind this
    p.watch_state = WATCH_NONE
    work.outstanding -= 1
    counter_add(&home.counters.fetch_woken, 1)
    fetch_unpark(work)


cdef void fetch_unpark(FetchWork *work) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchPart *p
    if work.phase != FETCH_PARKED:
        return
    work.phase = FETCH_UNPARKING
    timer_disarm(&shard.timers, &work.timer)
    if work.parked_prev != NULL:
        work.parked_prev.parked_next = work.parked_next
    else:
        shard.parked = work.parked_next
    if work.parked_next != NULL:
        work.parked_next.parked_prev = work.parked_prev
    work.parked = False
    p = first_part(work)
    while p != NULL:
        if p.watch_state == WATCH_HERE:
            log_unwatch(shard.store, &p.watch)
            p.watch_state = WATCH_NONE
        elif p.watch_state == WATCH_THERE:
            p.watch_state = WATCH_ENDING
            mail_send(shard.out[p.part.owner], MAIL_UNWATCH, 0, p)
            shard.out_dirty = 1
        p = p.next
    if work.outstanding == 0:
        let_go(work)


cdef void fetch_unwatch_here(Shard *owner, void *what) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> what
    if p.watch.armed:
        log_unwatch(owner.store, &p.watch)
    mail_send(owner.out[p.home.index], MAIL_UNWATCHED, 0, p)
    owner.out_dirty = 1


cdef void fetch_unwatched(Shard *home, void *what) noexcept nogil:
    cdef FetchPart *p = <FetchPart *> what
    cdef FetchWork *work = <FetchWork *> p.work
    p.watch_state = WATCH_NONE
    work.outstanding -= 1
    if work.outstanding == 0:
        let_go(work)


cdef void let_go(FetchWork *work) noexcept nogil:
    """No watch is left: nothing holds the partitions."""
    cdef FetchPart *p = first_part(work)
    while p != NULL:
        if p.held:
            p.watch.part.users[work.shard.index] -= 1
            p.held = False
        p = p.next
    work.unwatched(work)


cdef void fetch_recheck(Shard *shard) noexcept nogil:
    cdef FetchWork *work = <FetchWork *> shard.parked
    cdef FetchWork *following
    while work != NULL:
        following = work.parked_next
        fetch_unpark(work)
        work = following
