"""See session.pxd."""
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from fastlog.native.net cimport counter_add
from fastlog.native.slab cimport slab_get, slab_put

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *buf, size_t n, unsigned int flags)

cdef extern from "siphash.h" nogil:
    uint32_t secret_hash "fl_hash"(const void *p, uint64_t n)

cdef enum:
    SESSION_HASH = 256              # buckets of the shard's look-up by id
    EVICTION_S = 120                # min.incremental.fetch.session.eviction.ms: one unused for as long may make room

cdef struct Sessions:
    Session *by_id[256]
    int32_t n


cdef Sessions *table_of(Shard *shard) noexcept nogil:
    if shard.sessions == NULL:
        shard.sessions = calloc(1, sizeof(Sessions))
    return <Sessions *> shard.sessions


cdef inline uint32_t bucket(int32_t id) noexcept nogil:
    return (<uint32_t> id >> 6) & (SESSION_HASH - 1)


cdef Session *session_find(Shard *shard, int32_t id) noexcept nogil:
    cdef Sessions *all = table_of(shard)
    cdef Session *s
    if all == NULL:
        return NULL
    s = all.by_id[bucket(id)]
    while s != NULL and s.id != id:
        s = s.next
    return s


cdef bint evict(Shard *shard, Sessions *all) noexcept nogil:
    """Ends the session unused for longest, if that is long enough."""
    cdef Session *oldest = NULL
    cdef Session *s
    cdef int i
    for i in range(SESSION_HASH):
        s = all.by_id[i]
        while s != NULL:
            if not s.busy and (oldest == NULL or s.used_ns < oldest.used_ns):
                oldest = s
            s = s.next
    if oldest == NULL or shard.now_ns - oldest.used_ns < <int64_t> EVICTION_S * 1000000000:
        return False
    session_end(shard, oldest)
    return True


cdef Session *session_new(Shard *shard, bint by_id) noexcept nogil:
    cdef Sessions *all = table_of(shard)
    cdef Session *s
    cdef uint32_t random = 0
    if all == NULL or (all.n >= shard.limits.sessions_max and not evict(shard, all)):
        return NULL
    s = <Session *> calloc(1, sizeof(Session))
    if s == NULL:
        return NULL
    s.mask = 15
    s.hash = <FetchPart **> calloc(s.mask + 1, sizeof(FetchPart *))
    if s.hash == NULL:
        free(s)
        return NULL
    while True:
        getrandom(&random, sizeof(random), 0)
        s.id = <int32_t> ((random & 0x7FFFFFC0) | <uint32_t> shard.index)
        if s.id > 63 and session_find(shard, s.id) == NULL:
            break
    s.by_id = by_id
    s.epoch = 1
    s.used_ns = shard.now_ns
    s.next = all.by_id[bucket(s.id)]
    if s.next != NULL:
        s.next.prev = s
    all.by_id[bucket(s.id)] = s
    all.n += 1
    counter_add(&shard.counters.sessions, 1)
    return s


cdef void session_end(Shard *shard, Session *s) noexcept nogil:
    cdef Sessions *all = table_of(shard)
    if not s.doomed:
        if s.prev != NULL:
            s.prev.next = s.next
        else:
            all.by_id[bucket(s.id)] = s.next
        if s.next != NULL:
            s.next.prev = s.prev
        s.next = NULL
        s.prev = NULL
        all.n -= 1
        counter_add(&shard.counters.sessions, -1)
        s.doomed = True
    if s.busy:
        return
    while s.first != NULL:
        session_remove(shard, s, s.first)
    free(s.hash)
    free(s)


cdef uint32_t hash_of(const FetchPart *p) noexcept nogil:
    cdef uint32_t h = secret_hash(p.topic_id, 16) if p.by_id else secret_hash(p.name, p.name_length)
    return (h ^ <uint32_t> p.index) * <uint32_t> 2654435761


cdef inline bint same(const FetchPart *a, const FetchPart *b) noexcept nogil:
    if a.index != b.index or a.by_id != b.by_id:
        return False
    if a.by_id:
        return memcmp(a.topic_id, b.topic_id, 16) == 0
    return a.name_length == b.name_length and memcmp(a.name, b.name, a.name_length) == 0


cdef FetchPart *session_part(const Session *s, const FetchPart *like) noexcept nogil:
    cdef FetchPart *p = s.hash[(hash_of(like) >> 8) & s.mask]
    while p != NULL and not same(p, like):
        p = p.chain
    return p


cdef void rehash(Session *s) noexcept nogil:
    cdef uint32_t mask = s.mask * 4 + 3, at
    cdef FetchPart **hash = <FetchPart **> calloc(<uint64_t> mask + 1, sizeof(FetchPart *))
    cdef FetchPart *p = s.first
    if hash == NULL:
        return                      # longer chains, nothing worse
    free(s.hash)
    s.hash = hash
    s.mask = mask
    while p != NULL:
        at = (hash_of(p) >> 8) & mask
        p.chain = hash[at]
        hash[at] = p
        p = p.next


cdef int session_add(Session *s, FetchPart *part) noexcept nogil:
    cdef uint8_t *name
    cdef uint32_t at
    if not part.by_id and not part.owns_name:
        name = <uint8_t *> malloc(part.name_length + 1)
        if name == NULL:
            return -1
        memcpy(name, part.name, part.name_length)
        part.name = name
        part.owns_name = True
    part.next = NULL
    part.prev = s.last
    if s.last != NULL:
        s.last.next = part
    else:
        s.first = part
    s.last = part
    s.n += 1
    part.sent_high_watermark = -1
    part.sent_log_start = -1
    at = (hash_of(part) >> 8) & s.mask
    part.chain = s.hash[at]
    s.hash[at] = part
    if <uint32_t> s.n > s.mask:
        rehash(s)
    return 0


cdef void take_out(Session *s, FetchPart *part) noexcept nogil:
    if part.prev != NULL:
        part.prev.next = part.next
    else:
        s.first = part.next
    if part.next != NULL:
        part.next.prev = part.prev
    else:
        s.last = part.prev


cdef void session_remove(Shard *shard, Session *s, FetchPart *part) noexcept nogil:
    cdef FetchPart **at = &s.hash[(hash_of(part) >> 8) & s.mask]
    while at[0] != part:
        at = &at[0].chain
    at[0] = part.chain
    take_out(s, part)
    s.n -= 1
    fetch_part_free(shard, part)


cdef void session_to_end(Session *s, FetchPart *part) noexcept nogil:
    if s.last == part:
        return
    take_out(s, part)
    part.next = NULL
    part.prev = s.last
    s.last.next = part
    s.last = part


cdef FetchPart *fetch_part_new(Shard *shard) noexcept nogil:
    cdef FetchPart *part = <FetchPart *> slab_get(&shard.fetch_free, &shard.fetch_free_n, FETCH_SLAB)
    if part != NULL:
        part.home = shard
    return part


cdef void fetch_part_free(Shard *shard, FetchPart *part) noexcept nogil:
    if part.owns_name:
        free(part.name)
    slab_put(&shard.fetch_free, &shard.fetch_free_n, part)


cdef FetchPart *fetch_parts_once(Shard *shard, FetchPart *first) noexcept nogil:
    cdef uint32_t mask = 15, at
    cdef uint64_t n = 0
    cdef FetchPart **seen
    cdef FetchPart *part = first
    cdef FetchPart *last = first
    cdef FetchPart *before
    while part != NULL:
        n += 1
        part = part.next
    while mask < n * 2:
        mask = mask * 2 + 1
    seen = <FetchPart **> calloc(<uint64_t> mask + 1, sizeof(FetchPart *))
    if seen == NULL:
        return NULL
    part = first
    while part != NULL:
        at = (hash_of(part) >> 8) & mask
        before = seen[at]
        while before != NULL and not same(before, part):
            before = before.chain
        if before == NULL:
            part.chain = seen[at]
            seen[at] = part
            last = part
        else:
            before.offset = part.offset
            before.bytes_max = part.bytes_max
            before.leader_epoch = part.leader_epoch
            last.next = part.next
            fetch_part_free(shard, part)
        part = last.next
    free(seen)
    return last


cdef void sessions_free(Shard *shard) noexcept nogil:
    cdef Sessions *all = <Sessions *> shard.sessions
    cdef int i
    if all == NULL:
        return
    for i in range(SESSION_HASH):
        while all.by_id[i] != NULL:
            all.by_id[i].busy = False
            session_end(shard, all.by_id[i])
    free(all)
    shard.sessions = NULL
