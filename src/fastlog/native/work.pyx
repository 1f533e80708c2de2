"""The worker pool.

Jobs wait in two lists, one a lane, under one lock. A finished Job is pushed onto its Home's stack without a lock; only the push that
finds the stack empty wakes the owner, as whoever pushed before has already done so and the owner takes all at once.
"""
from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from fastlog.native.ring cimport Ring, ring_wake
from fastlog.native.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t, pthread_cond_wait,
    pthread_join, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, pthread_t,
    thread_start)

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint condition)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from *:
    """
    /* Pushes a job whose `next` lies at *link; whether the stack was empty. */
    static inline int fl_stack_push(void **top, void *item, void **link) {
        void *seen = __atomic_load_n(top, __ATOMIC_RELAXED);
        do {
            *link = seen;
        } while (!__atomic_compare_exchange_n(top, &seen, item, 1, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
        return seen == 0;
    }
    static inline void *fl_stack_take(void **top) {
        return __atomic_load_n(top, __ATOMIC_RELAXED) ? __atomic_exchange_n(top, (void *) 0, __ATOMIC_ACQUIRE) : 0;
    }
    static inline void fl_count(uint32_t *n, uint32_t by) { __atomic_fetch_add(n, by, __ATOMIC_ACQ_REL); }
    static inline uint32_t fl_counted(const uint32_t *n) { return __atomic_load_n(n, __ATOMIC_ACQUIRE); }
    """
    bint stack_push "fl_stack_push"(void **top, void *item, void **link) noexcept nogil
    void *stack_take "fl_stack_take"(void **top) noexcept nogil
    void count "fl_count"(uint32_t *n, uint32_t by) noexcept nogil
    uint32_t counted "fl_counted"(const uint32_t *n) noexcept nogil

cdef enum:
    LANES = 2
    THREADS_MAX = 64

cdef struct Lane:
    Job *first
    Job *last

cdef struct Home:
    Ring *ring
    uint64_t out                    # the owner's: submitted and not reaped
    void *finished                  # Job *, newest first; shared
    uint32_t finishing              # workers between their push and their last look at this Home; shared

cdef struct Pool:
    pthread_mutex_t lock
    pthread_cond_t more
    Lane[2] lanes
    int idle
    int later                       # workers busy with WORK_LATER: never all of them, so that a request need not wait for zeroing
    bint stop
    int threads_count
    pthread_t[64] threads


cdef int pool_open(Pool **out, int threads) noexcept nogil:
    cdef Pool *pool
    cdef int error = 0
    if threads < 0 or threads > THREADS_MAX:
        return -EINVAL
    pool = <Pool *> calloc(1, sizeof(Pool))
    if pool == NULL:
        return -ENOMEM
    pthread_mutex_init(&pool.lock, NULL)
    pthread_cond_init(&pool.more, NULL)
    while error == 0 and pool.threads_count < threads:
        error = thread_start(&pool.threads[pool.threads_count], worker, pool, b"fastlog-work")
        if error == 0:
            pool.threads_count += 1
    if error < 0:
        pool_close(pool)
        return error
    out[0] = pool
    return 0


cdef void pool_close(Pool *pool) noexcept nogil:
    cdef int i
    pthread_mutex_lock(&pool.lock)
    pool.stop = True
    pthread_cond_broadcast(&pool.more)
    pthread_mutex_unlock(&pool.lock)
    for i in range(pool.threads_count):
        pthread_join(pool.threads[i], NULL)
    pthread_cond_destroy(&pool.more)
    pthread_mutex_destroy(&pool.lock)
    free(pool)


cdef Home *home_open(Ring *ring) noexcept nogil:
    cdef Home *home = <Home *> calloc(1, sizeof(Home))
    if home != NULL:
        home.ring = ring
    return home


cdef void home_close(Home *home) noexcept nogil:
    FL_ASSERT(home.out == 0)
    while counted(&home.finishing):     # it has pushed the last job, and may be about to wake the ring
        sched_yield()
    free(home)


cdef void work_submit(Pool *pool, Home *home, Job *job, int lane) noexcept nogil:
    cdef Lane *at = &pool.lanes[lane]
    FL_ASSERT(lane == WORK_SOON or lane == WORK_LATER)
    job.home = home
    job.lane = <uint8_t> lane
    job.next = NULL
    home.out += 1
    pthread_mutex_lock(&pool.lock)
    if at.last != NULL:
        at.last.next = job
    else:
        at.first = job
    at.last = job
    if pool.idle:
        pthread_cond_signal(&pool.more)
    pthread_mutex_unlock(&pool.lock)


cdef int work_reap(Home *home) noexcept nogil:
    cdef Job *job = <Job *> stack_take(&home.finished)
    cdef Job *oldest = NULL
    cdef Job *following
    cdef int n = 0
    while job != NULL:                  # newest first: turned round
        following = job.next
        job.next = oldest
        oldest = job
        job = following
    while oldest != NULL:
        job = oldest
        oldest = job.next
        home.out -= 1
        n += 1
        job.done(job)                   # may free it, or submit it again
    return n


cdef uint64_t work_pending(const Home *home) noexcept nogil:
    return home.out


cdef bint pool_step(Pool *pool, int lane) noexcept nogil:
    cdef Job *job
    FL_ASSERT(pool.threads_count == 0)
    job = take_from(&pool.lanes[lane])
    if job == NULL:
        return False
    job.run(job)
    stack_push(&job.home.finished, job, <void **> &job.next)
    return True


cdef Job *take_from(Lane *lane) noexcept nogil:
    cdef Job *job = lane.first
    if job != NULL:
        lane.first = job.next
        if job.next == NULL:
            lane.last = NULL
    return job


# ---- on the workers' threads

cdef Job *take(Pool *pool) noexcept nogil:
    cdef Job *job
    cdef int i
    for i in range(LANES):
        if i == WORK_LATER and pool.later and pool.later >= pool.threads_count - 1:
            return NULL                 # whoever finishes one takes the next
        job = take_from(&pool.lanes[i])
        if job != NULL:
            return job
    return NULL


cdef void *worker(void *argument) noexcept nogil:
    cdef Pool *pool = <Pool *> argument
    cdef Home *home
    cdef Job *job
    cdef bint later
    pthread_mutex_lock(&pool.lock)
    while True:
        job = take(pool)
        if job == NULL:
            if pool.stop:
                break
            pool.idle += 1
            pthread_cond_wait(&pool.more, &pool.lock)
            pool.idle -= 1
            continue
        later = job.lane == WORK_LATER
        pool.later += later
        pthread_mutex_unlock(&pool.lock)
        job.run(job)
        home = job.home
        count(&home.finishing, 1)
        if stack_push(&home.finished, job, <void **> &job.next):        # from here on the job is its owner's
            ring_wake(home.ring)
        count(&home.finishing, <uint32_t> -1)
        pthread_mutex_lock(&pool.lock)
        pool.later -= later
    pthread_mutex_unlock(&pool.lock)
    return NULL
