"""Chunks of memory for appends, the tail cache and cold reads. See arena.pxd."""
from libc.errno cimport errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strdup, strerror
from fastlog.native.work cimport Home, Job, Pool, WORK_SOON, work_submit

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint)

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <unistd.h>
    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23
    #endif
    #ifndef MADV_COLLAPSE
    #define MADV_COLLAPSE 25
    #endif
    enum { FL_HUGE = 2 << 20 };
    /* An address range at a multiple of 2 MiB, so that huge pages fit: copying into them, and the kernel's pinning of them for writes,
       costs less than half, and a write of 2 MiB is one request to the device instead of several. */
    static void *fl_map(size_t bytes, int fd)
    {
        char *p = mmap(0, bytes + FL_HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            return 0;
        char *at = (char *) (((uintptr_t) p + FL_HUGE - 1) & ~(uintptr_t) (FL_HUGE - 1));
        size_t before = (size_t) (at - p);
        size_t end = (bytes + 4095) & ~(size_t) 4095;
        if (before)
            munmap(p, before);
        if (bytes + FL_HUGE - before > end)
            munmap(at + end, bytes + FL_HUGE - before - end);
        int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
        if (mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_FIXED | flags, fd, 0) == MAP_FAILED) {
            int err = errno;
            munmap(at, end);
            errno = err;
            return 0;
        }
        if (fd < 0)
            madvise(at, bytes, MADV_HUGEPAGE);
        madvise(at, bytes, MADV_DONTFORK);
        madvise(at, bytes, MADV_DONTDUMP);
        return at;
    }
    static int fl_ready(char *p, size_t from, size_t bytes, int fd)
    {
        if (fd >= 0) {
            /* tmpfs gives small pages unless its mount says otherwise; it makes a huge one of a range with a page in it when asked to
               (Linux 6.1). Where that fails, small ones do. */
            size_t i = 0;
            while (i + FL_HUGE <= bytes && posix_fallocate(fd, (off_t) (from + i), 4096) == 0)
                i += FL_HUGE;
            if (i)
                madvise(p + from, i, MADV_COLLAPSE);
            int err = posix_fallocate(fd, (off_t) from, (off_t) bytes);
            if (err)
                return err;
        }
        if (madvise(p + from, bytes, MADV_POPULATE_WRITE) == 0)
            return 0;
        if (errno != EINVAL)
            return errno;
        for (size_t i = 0; i < bytes; i += 4096)        /* an older kernel: touch each page */
            ((volatile char *) p)[from + i] = 0;
        return 0;
    }
    static inline void fl_store_rel32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    enum: FL_HUGE
    void *fl_map(size_t bytes, int fd) nogil
    int fl_ready(char *p, size_t at, size_t bytes, int fd) nogil
    void fl_store_rel32(uint32_t *p, uint32_t v) nogil
    int munmap(void *p, size_t n) nogil
    int open(const char *path, int flags, int mode) nogil
    int close(int fd) nogil
    int unlink(const char *path) nogil
    int ftruncate(int fd, int64_t n) nogil
    int getpid() nogil
    int O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW, O_CLOEXEC

cdef enum:
    FIRST_CHUNKS = 32               # made ready by arena_open itself: 2 MiB
    STEP_CHUNKS_MAX = 128           # 8 MiB at a time: appends may wait for it


cdef struct Grow:
    Job job                         # first: a Job * is a Grow *
    Arena *arena
    uint64_t at                     # position in the mapping
    uint64_t bytes
    uint32_t chunks
    int error


cdef void grow_run(Job *job) noexcept nogil:
    cdef Grow *g = <Grow *> job
    g.error = fl_ready(<char *> g.arena.map, g.at, g.bytes, g.arena.fd)


cdef void add_ready(Arena *a, uint32_t n) noexcept nogil:
    cdef uint32_t i = a.ready + n
    cdef Chunk *c
    while i > a.ready:              # the lowest address ends up first, so that neighbours are taken one after the other
        i -= 1
        c = a.chunks + i
        c.data = a.data + (<uint64_t> i << CHUNK_SHIFT)
        c.header = (<ChunkHeader *> (a.map + BLOCK)) + i if a.fd >= 0 else NULL
        c.next = a.free
        a.free = c
    a.ready += n
    a.free_count += n
    a.released += n


cdef void grow_done(Job *job) noexcept nogil:
    cdef Grow *g = <Grow *> job
    cdef Arena *a = g.arena
    a.growing = False
    if g.error:
        a.grow_failed = True        # what is ready must do: tmpfs is full, or the memory limit is reached
    else:
        add_ready(a, g.chunks)


cdef void arena_grow(Arena *a) noexcept nogil:
    cdef Grow *g = <Grow *> a.grow
    cdef uint32_t n
    if a.growing or a.grow_failed or a.ready == a.capacity:
        return
    n = a.ready if a.ready < STEP_CHUNKS_MAX else STEP_CHUNKS_MAX
    if n > a.capacity - a.ready:
        n = a.capacity - a.ready
    g.at = <uint64_t> (a.data - a.map) + (<uint64_t> a.ready << CHUNK_SHIFT)
    g.bytes = <uint64_t> n << CHUNK_SHIFT
    g.chunks = n
    g.error = 0
    a.growing = True
    work_submit(a.pool, a.home, &g.job, WORK_SOON)


cdef inline void want_more(Arena *a) noexcept nogil:
    """More memory when little of what is ready is free."""
    if a.free_count <= a.ready // 4 and a.ready < a.capacity:
        arena_grow(a)


cdef int arena_open(Arena **out, uint64_t memory, const char *path, int shard, Pool *pool, Home *home,
                    void (*evicting)(Chunk *c) noexcept nogil, char *why, size_t why_len) noexcept nogil:
    cdef uint64_t n = memory >> CHUNK_SHIFT
    cdef uint64_t headers
    cdef uint32_t buckets = 64
    cdef Arena *a
    cdef ArenaFile *head
    cdef int err
    if n < 8 or n > 0x1000000:
        snprintf(why, why_len, "memory of %llu bytes is out of range (512 KiB to 1 TiB)", <unsigned long long> memory)
        return -22
    headers = 0
    if path != NULL:
        headers = (BLOCK + n * sizeof(ChunkHeader) + FL_HUGE - 1) // FL_HUGE * FL_HUGE
    while buckets < 2 * n:
        buckets *= 2
    a = <Arena *> calloc(1, sizeof(Arena))
    if a == NULL:
        snprintf(why, why_len, "out of memory")
        return -12
    a.fd = -1
    a.pool = pool
    a.home = home
    a.evicting = evicting
    a.capacity = <uint32_t> n
    a.mask = buckets - 1
    a.cold_max = a.capacity // 4
    a.cold_floor = a.capacity // 16
    if a.cold_floor < 32:
        a.cold_floor = 32 if a.cold_max > 32 else a.cold_max
    a.chunks = <Chunk *> calloc(n, sizeof(Chunk))
    a.buckets = <Chunk **> calloc(buckets, sizeof(Chunk *))
    a.grow = calloc(1, sizeof(Grow))
    if a.chunks == NULL or a.buckets == NULL or a.grow == NULL:
        snprintf(why, why_len, "out of memory")
        arena_close(a, False)
        return -12
    (<Grow *> a.grow).arena = a
    (<Grow *> a.grow).job.run = grow_run
    (<Grow *> a.grow).job.done = grow_done
    a.map_bytes = headers + (n << CHUNK_SHIFT)
    if path != NULL:
        a.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        if a.fd < 0:
            err = errno
            snprintf(why, why_len, "arena %s: %s", path, strerror(err))
            arena_close(a, False)
            return -err
        a.path = strdup(path)
        if a.path == NULL or ftruncate(a.fd, <int64_t> a.map_bytes) != 0:
            err = errno
            snprintf(why, why_len, "arena %s: %s", path, strerror(err))
            arena_close(a, False)
            return -err
    a.map = <uint8_t *> fl_map(a.map_bytes, a.fd)
    if a.map == NULL:
        err = errno
        snprintf(why, why_len, "cannot map %llu bytes: %s", <unsigned long long> a.map_bytes, strerror(err))
        arena_close(a, False)
        return -err
    a.data = a.map + headers
    n = FIRST_CHUNKS if a.capacity > FIRST_CHUNKS else a.capacity
    err = 0
    if headers:
        err = fl_ready(<char *> a.map, 0, headers, a.fd)
    if not err:
        err = fl_ready(<char *> a.map, headers, n << CHUNK_SHIFT, a.fd)
    if err:
        snprintf(why, why_len, "arena of %llu bytes: %s", <unsigned long long> a.map_bytes, strerror(err))
        arena_close(a, False)
        return -err
    if headers:
        head = <ArenaFile *> a.map
        head.version = ARENA_VERSION
        head.chunk_bytes = CHUNK
        head.chunks = a.capacity
        head.headers = BLOCK
        head.data = headers
        head.shard = shard
        head.pid = getpid()
        fl_store_rel32(&head.magic, ARENA_MAGIC)
    add_ready(a, <uint32_t> n)
    out[0] = a
    return 0


cdef void arena_close(Arena *a, bint leave) noexcept nogil:
    if a == NULL:
        return
    FL_ASSERT(not a.growing)
    if a.map != NULL:
        munmap(a.map, a.map_bytes)
    if a.fd >= 0:
        close(a.fd)
    if a.path != NULL:
        if not leave:
            unlink(a.path)
        free(a.path)
    free(a.grow)
    free(a.chunks)
    free(a.buckets)
    free(a)


cdef inline uint32_t bucket_of(const Arena *a, const ChunkSet *set, int64_t window) noexcept nogil:
    cdef uint64_t h = (set.id * <uint64_t> 0x9E3779B97F4A7C15) ^ (<uint64_t> (window >> CHUNK_SHIFT) * <uint64_t> 0xC2B2AE3D27D4EB4F)
    return <uint32_t> (h >> 32) & a.mask


cdef Chunk *arena_find(Arena *a, const ChunkSet *set, int64_t window) noexcept nogil:
    cdef Chunk *c = a.buckets[bucket_of(a, set, window)]
    while c != NULL and (c.set != set or c.window != window):
        c = c.chain
    return c


cdef void unlink_set(Arena *a, Chunk *c) noexcept nogil:
    """Out of its segment's set and of the hash."""
    cdef Chunk **at = a.buckets + bucket_of(a, c.set, c.window)
    while at[0] != c:
        at = &at[0].chain
    at[0] = c.chain
    c.chain = NULL
    if c.set_prev != NULL:
        c.set_prev.set_next = c.set_next
    else:
        c.set.first = c.set_next
    if c.set_next != NULL:
        c.set_next.set_prev = c.set_prev
    c.set.count -= 1
    c.set_next = NULL
    c.set_prev = NULL
    c.set = NULL
    if c.header != NULL and c.header.end != 0:
        fl_store_rel32(&c.header.end, 0)


cdef inline ChunkList *list_of(Arena *a, const Chunk *c) noexcept nogil:
    return &a.colds if c.kind == CHUNK_COLD else &a.tails


cdef void list_remove(Arena *a, Chunk *c) noexcept nogil:
    cdef ChunkList *list = list_of(a, c)
    if c.prev != NULL:
        c.prev.next = c.next
    else:
        list.first = c.next
    if c.next != NULL:
        c.next.prev = c.prev
    else:
        list.last = c.prev
    c.next = NULL
    c.prev = NULL
    c.listed = False
    list.count -= 1


cdef void give_back(Arena *a, Chunk *c) noexcept nogil:
    """To the free list; it is in no set and in no list."""
    if c.kind == CHUNK_COLD:
        a.cold -= 1
    c.kind = CHUNK_FREE
    c.owner = NULL
    c.next = a.free
    a.free = c
    a.free_count += 1
    a.released += 1


cdef void evict(Arena *a, Chunk *c) noexcept nogil:
    if c.owner != NULL:
        a.evicting(c)
        c.owner = NULL
    list_remove(a, c)
    unlink_set(a, c)
    a.evictions += 1
    give_back(a, c)


cdef uint32_t arena_available(const Arena *a, ChunkKind kind) noexcept nogil:
    cdef uint32_t room
    if kind == CHUNK_COLD:
        room = a.cold_max - a.cold if a.cold < a.cold_max else 0
        if room > a.free_count + a.tails.count:
            room = a.free_count + a.tails.count
        return room + a.colds.count
    return a.free_count + a.tails.count + a.colds.count


cdef Chunk *arena_take(Arena *a, ChunkKind kind, ChunkSet *set, int64_t window) noexcept nogil:
    cdef Chunk *c
    cdef uint32_t b
    if kind == CHUNK_COLD and a.cold >= a.cold_max:
        if a.colds.last == NULL:
            return NULL
        evict(a, a.colds.last)
    elif a.free == NULL:
        if a.colds.last != NULL and (a.cold > a.cold_floor or a.tails.last == NULL):
            evict(a, a.colds.last)
        elif a.tails.last != NULL:
            evict(a, a.tails.last)
        elif a.colds.last != NULL:
            evict(a, a.colds.last)
        else:
            want_more(a)
            return NULL
    c = a.free
    a.free = c.next
    a.free_count -= 1
    want_more(a)
    FL_ASSERT(c.pins == 0 and not c.dirty and not c.busy and not c.listed and c.set == NULL)
    c.next = NULL
    c.prev = NULL
    c.kind = <uint8_t> kind
    if kind == CHUNK_COLD:
        a.cold += 1
    c.window = window
    c.start = 0
    c.end = 0
    c.written = 0
    c.doubt_from = 0
    c.doubt_to = 0
    c.set = set
    c.set_prev = NULL
    c.set_next = set.first
    if set.first != NULL:
        set.first.set_prev = c
    set.first = c
    set.count += 1
    b = bucket_of(a, set, window)
    c.chain = a.buckets[b]
    a.buckets[b] = c
    return c


cdef void arena_hold(Arena *a, Chunk *c) noexcept nogil:
    if c.listed:
        list_remove(a, c)


cdef void arena_settle(Arena *a, Chunk *c) noexcept nogil:
    cdef ChunkList *list
    if c.pins or c.dirty or c.busy or c.listed or c.kind == CHUNK_FREE:
        return
    if c.set == NULL:
        give_back(a, c)
        return
    list = list_of(a, c)
    c.prev = NULL
    c.next = list.first
    if list.first != NULL:
        list.first.prev = c
    else:
        list.last = c
    list.first = c
    c.listed = True
    list.count += 1
    a.released += 1


cdef void arena_pin(Arena *a, Chunk *c) noexcept nogil:
    arena_hold(a, c)
    if c.pins == 0:
        a.pinned += 1
    c.pins += 1


cdef void arena_unpin(Arena *a, Chunk *c) noexcept nogil:
    FL_ASSERT(c.pins > 0)
    c.pins -= 1
    if c.pins == 0:
        a.pinned -= 1
        arena_settle(a, c)


cdef void arena_drop(Arena *a, Chunk *c) noexcept nogil:
    arena_hold(a, c)
    c.owner = NULL
    c.dirty = False
    if c.set != NULL:
        unlink_set(a, c)
    arena_settle(a, c)


cdef void arena_drop_set(Arena *a, ChunkSet *set) noexcept nogil:
    while set.first != NULL:
        arena_drop(a, set.first)


cdef void arena_promote(Arena *a, Chunk *c) noexcept nogil:
    FL_ASSERT(c.kind == CHUNK_COLD and not c.busy)
    arena_hold(a, c)
    a.cold -= 1
    c.kind = CHUNK_TAIL
    c.written = c.end


cdef void chunk_label(Chunk *c, const uint8_t *topic_id, int32_t partition, int64_t base_offset) noexcept nogil:
    cdef ChunkHeader *h = c.header
    if h == NULL:
        return
    fl_store_rel32(&h.end, 0)
    memcpy(h.topic_id, topic_id, 16)
    h.partition = partition
    h.base_offset = base_offset
    h.window = c.window
    h.start = c.start
    h.written = c.written


cdef void chunk_publish(Chunk *c) noexcept nogil:
    if c.header != NULL:
        fl_store_rel32(&c.header.end, c.end)


cdef void chunk_published_written(Chunk *c) noexcept nogil:
    if c.header != NULL:
        fl_store_rel32(&c.header.written, c.written)
