"""See quota.pxd."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *m, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *m)
    int pthread_mutex_unlock(pthread_mutex_t *m)
    int pthread_mutex_destroy(pthread_mutex_t *m)

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint32_t fl_quota_get(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void fl_quota_set(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    """
    uint32_t on_get "fl_quota_get"(const uint32_t *p) noexcept nogil
    void on_set "fl_quota_set"(uint32_t *p, uint32_t v) noexcept nogil

cdef enum:
    HASH = 1024                     # chains; a power of two
    UNNAMED_MAX = 8192              # clients known by what they sent only: the one unseen for longest makes room
    SAMPLES_MAX = 128
    NAME_MAX = 256                  # bytes of a client id that are kept; longer ones are told apart by length and hash
    REQUEST_WAIT_WINDOWS = 1        # a client waits no longer than this for its time (Kafka bounds it, too)

cdef struct Samples:
    int64_t begun_ms                # where the first window begins: with what was counted first after a time without anything
    int64_t newest                  # window
    int64_t *window                 # [samples]: which window each counts, by number
    double *amount

cdef struct Client:
    Client *chain
    Client *newer                   # in the list of unnamed ones
    Client *older
    uint64_t hash
    uint8_t *name
    uint32_t length
    bint named
    double bounds[3]
    bint shared[3]
    Samples own[3]

cdef struct Quotas:
    pthread_mutex_t mutex
    uint32_t on                     # atomic: bit of each kind that has a bound
    uint32_t setting
    int32_t samples
    int64_t window_ms
    double bounds[3]
    bint shared[3]
    Samples together[3]
    Client *clients[1024]
    Client *newest
    Client *oldest
    int32_t n_unnamed


cdef int samples_init(Samples *s, int32_t n) noexcept nogil:
    s.window = <int64_t *> calloc(n, sizeof(int64_t) + sizeof(double))
    s.amount = <double *> (s.window + n)
    return -1 if s.window == NULL else 0


cdef Quotas *quota_open(int32_t samples, int64_t window_ms) noexcept nogil:
    cdef Quotas *q = <Quotas *> calloc(1, sizeof(Quotas))
    cdef int kind
    if q == NULL:
        return NULL
    pthread_mutex_init(&q.mutex, NULL)
    q.samples = samples if samples < SAMPLES_MAX else SAMPLES_MAX
    q.window_ms = window_ms
    for kind in range(<int> QUOTA_KINDS):
        q.bounds[kind] = -1
        if samples_init(&q.together[kind], q.samples) < 0:
            quota_free(q)
            return NULL
    return q


cdef void client_free(Client *c) noexcept nogil:
    cdef int kind
    for kind in range(<int> QUOTA_KINDS):
        free(c.own[kind].window)
    free(c.name)
    free(c)


cdef void quota_free(Quotas *q) noexcept nogil:
    cdef Client *c
    cdef Client *following
    cdef int i
    if q == NULL:
        return
    for i in range(HASH):
        c = q.clients[i]
        while c != NULL:
            following = c.chain
            client_free(c)
            c = following
    for i in range(<int> QUOTA_KINDS):
        free(q.together[i].window)
    pthread_mutex_destroy(&q.mutex)
    free(q)


# ---- clients -------------------------------------------------------------------------------------------------------------------

cdef uint64_t hash_of(const uint8_t *name, uint32_t length) noexcept nogil:
    """FNV-1a. A chain that a client makes long costs its own requests and others' a few comparisons: the table is bounded."""
    cdef uint64_t h = 14695981039346656037ULL
    cdef uint32_t i
    for i in range(length):
        h = (h ^ name[i]) * 1099511628211ULL
    return h ^ (h >> 32)


cdef inline uint32_t kept(uint32_t length) noexcept nogil:
    return length if length < NAME_MAX else NAME_MAX


cdef Client *find(Quotas *q, const uint8_t *name, uint32_t length, uint64_t h) noexcept nogil:
    cdef Client *c = q.clients[h & (HASH - 1)]
    while c != NULL and (c.hash != h or c.length != length or memcmp(c.name, name, kept(length)) != 0):
        c = c.chain
    return c


cdef void unlist(Quotas *q, Client *c) noexcept nogil:
    if c.newer != NULL:
        c.newer.older = c.older
    else:
        q.newest = c.older
    if c.older != NULL:
        c.older.newer = c.newer
    else:
        q.oldest = c.newer
    q.n_unnamed -= 1


cdef void list_newest(Quotas *q, Client *c) noexcept nogil:
    c.newer = NULL
    c.older = q.newest
    if q.newest != NULL:
        q.newest.newer = c
    else:
        q.oldest = c
    q.newest = c
    q.n_unnamed += 1


cdef void remove(Quotas *q, Client *c) noexcept nogil:
    cdef Client **at = &q.clients[c.hash & (HASH - 1)]
    while at[0] != c:
        at = &at[0].chain
    at[0] = c.chain
    if not c.named:
        unlist(q, c)
    client_free(c)


cdef Client *add(Quotas *q, const uint8_t *name, uint32_t length, uint64_t h, bint named) noexcept nogil:
    cdef Client *c = <Client *> calloc(1, sizeof(Client))
    cdef int kind
    if c == NULL:
        return NULL
    c.name = <uint8_t *> malloc(kept(length) + 1)
    if c.name == NULL:
        free(c)
        return NULL
    memcpy(c.name, name, kept(length))
    for kind in range(<int> QUOTA_KINDS):
        if samples_init(&c.own[kind], q.samples) < 0:
            client_free(c)
            return NULL
    c.length = length
    c.hash = h
    c.named = named
    memcpy(c.bounds, q.bounds, sizeof(c.bounds))
    memcpy(c.shared, q.shared, sizeof(c.shared))
    c.chain = q.clients[h & (HASH - 1)]
    q.clients[h & (HASH - 1)] = c
    if not named:
        if q.n_unnamed >= UNNAMED_MAX:
            remove(q, q.oldest)
        list_newest(q, c)
    return c


cdef Client *client(Quotas *q, const uint8_t *name, int32_t length) noexcept nogil:
    """The client of this id; a null one is as an empty one. NULL: no memory."""
    cdef uint32_t n = <uint32_t> length if length > 0 else 0
    cdef uint64_t h = hash_of(name, n)
    cdef Client *c = find(q, name, n, h)
    if c == NULL:
        return add(q, name, n, h, False)
    if not c.named and c != q.newest:
        unlist(q, c)
        list_newest(q, c)
    return c


# ---- bounds --------------------------------------------------------------------------------------------------------------------

cdef void note(Quotas *q, const double *bounds) noexcept nogil:
    cdef int kind
    for kind in range(<int> QUOTA_KINDS):
        if bounds[kind] >= 0:
            q.setting |= 1 << kind


cdef void quota_begin(Quotas *q, const double *bounds, const bint *shared) noexcept nogil:
    cdef Client *c
    cdef int i
    pthread_mutex_lock(&q.mutex)
    q.setting = 0
    note(q, bounds)
    memcpy(q.bounds, bounds, sizeof(q.bounds))
    memcpy(q.shared, shared, sizeof(q.shared))
    for i in range(HASH):
        c = q.clients[i]
        while c != NULL:            # what they used still counts; one that is not named again is as any other
            if c.named:
                c.named = False
                list_newest(q, c)
            memcpy(c.bounds, bounds, sizeof(c.bounds))
            memcpy(c.shared, shared, sizeof(c.shared))
            c = c.chain


cdef int quota_name(Quotas *q, const uint8_t *name, uint32_t length, const double *bounds, const bint *shared) noexcept nogil:
    cdef uint64_t h = hash_of(name, length)
    cdef Client *c = find(q, name, length, h)
    if c == NULL:
        c = add(q, name, length, h, True)
        if c == NULL:
            return -1
    elif not c.named:
        unlist(q, c)
        c.named = True
    memcpy(c.bounds, bounds, sizeof(c.bounds))
    memcpy(c.shared, shared, sizeof(c.shared))
    note(q, bounds)
    return 0


cdef void quota_end(Quotas *q) noexcept nogil:
    on_set(&q.on, q.setting)
    pthread_mutex_unlock(&q.mutex)


cdef bint quota_on(const Quotas *q, int kind) noexcept nogil:
    return on_get(&q.on) >> kind & 1


# ---- counting ------------------------------------------------------------------------------------------------------------------

cdef int32_t quota_record(Quotas *q, int kind, const uint8_t *name, int32_t length, double amount, int64_t now_ms) noexcept nogil:
    cdef Client *c
    cdef int32_t wait = 0
    pthread_mutex_lock(&q.mutex)
    c = client(q, name, length)
    if c != NULL and c.bounds[kind] >= 0:
        wait = count(q, &q.together[kind] if c.shared[kind] else &c.own[kind], c.bounds[kind], amount, now_ms,
                     kind == QUOTA_FETCH)
        if kind == QUOTA_REQUEST and wait > REQUEST_WAIT_WINDOWS * q.window_ms:
            wait = <int32_t> (REQUEST_WAIT_WINDOWS * q.window_ms)
    pthread_mutex_unlock(&q.mutex)
    return wait


cdef int32_t count(Quotas *q, Samples *s, double bound, double amount, int64_t now_ms, bint undone) noexcept nogil:
    """`undone`: what is too much does not count, as it will not be given."""
    cdef int64_t window = (now_ms - s.begun_ms) // q.window_ms
    cdef int64_t oldest, elapsed, whole, wait
    cdef int32_t at, i
    cdef double total = 0
    if window < 0 or window < s.newest - 1 or window - s.newest >= q.samples:  # shards look at the clock at different moments
        for i in range(q.samples):
            s.amount[i] = 0
            s.window[i] = 0
        s.begun_ms = now_ms
        window = 0
        s.newest = 0
    if window > s.newest:
        s.newest = window
    oldest = window
    at = <int32_t> (window % q.samples)
    if s.window[at] != window:
        s.window[at] = window
        s.amount[at] = 0
    s.amount[at] += amount
    for i in range(q.samples):
        if s.amount[i] > 0 and window - s.window[i] < q.samples:
            total += s.amount[i]
            if s.window[i] < oldest:
                oldest = s.window[i]
    elapsed = now_ms - s.begun_ms - oldest * q.window_ms
    whole = elapsed // q.window_ms
    if whole < q.samples - 1:
        elapsed += (q.samples - 1 - whole) * q.window_ms
    if elapsed < 1:
        elapsed = 1
    if total * 1000 <= bound * elapsed:
        return 0
    if undone:
        s.amount[at] -= amount
    if bound <= 0:
        return <int32_t> q.window_ms
    wait = <int64_t> ((total * 1000 / elapsed - bound) / bound * elapsed + 0.5)
    return <int32_t> wait if wait < 0x7FFFFFFF else 0x7FFFFFFF


cdef int64_t quota_window(Quotas *q, int kind, const uint8_t *name, int32_t length) noexcept nogil:
    cdef Client *c
    cdef int64_t most = 0x7FFFFFFFFFFFFFFF
    cdef double bytes
    pthread_mutex_lock(&q.mutex)
    c = client(q, name, length)
    if c != NULL and c.bounds[kind] >= 0:
        bytes = c.bounds[kind] * (q.samples - 1) * q.window_ms / 1000
        if bytes < 9e18:
            most = <int64_t> bytes
    pthread_mutex_unlock(&q.mutex)
    return most
