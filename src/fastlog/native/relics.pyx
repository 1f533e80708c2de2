"""Arenas of dead processes. See relics.pxd.

Nothing in them is trusted: a header counts only when it lies within bounds, and recovery checks every byte taken over.
"""
from libc.errno cimport errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcmp, strdup, strerror, strlen
from fastlog.native.arena cimport ARENA_MAGIC, ARENA_VERSION, BLOCK, CHUNK, ArenaFile, ChunkHeader
from fastlog.native.files cimport file_close, file_open_buffered, file_write

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <unistd.h>
    /* A regular file of ours that no one else may touch. Its size, or -errno (EPERM: not such a file). */
    static int64_t fl_private_size(int fd)
    {
        struct stat st;
        if (fstat(fd, &st))
            return -errno;
        if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 0777) != 0600 || st.st_nlink != 1)
            return -EPERM;
        return (int64_t) st.st_size;
    }
    static void *fl_map_read(int fd, size_t n)
    {
        void *p = mmap(0, n, PROT_READ, MAP_SHARED, fd, 0);
        return p == MAP_FAILED ? 0 : p;
    }
    """
    int64_t fl_private_size(int fd) nogil
    void *fl_map_read(int fd, size_t n) nogil
    int munmap(void *p, size_t n) nogil
    int open(const char *path, int flags, ...) nogil
    int unlink(const char *path) nogil
    int posix_fadvise(int fd, int64_t at, int64_t n, int advice) nogil
    int64_t lseek(int fd, int64_t at, int whence) nogil
    int O_RDONLY, O_CLOEXEC, O_NOFOLLOW, POSIX_FADV_DONTNEED, SEEK_HOLE


cdef int compare(const ChunkHeader *a, const uint8_t *topic_id, int32_t partition, int64_t base_offset, int64_t window) noexcept nogil:
    cdef int order = memcmp(a.topic_id, topic_id, 16)
    if order:
        return order
    if a.partition != partition:
        return -1 if a.partition < partition else 1
    if a.base_offset != base_offset:
        return -1 if a.base_offset < base_offset else 1
    if a.window != window:
        return -1 if a.window < window else 1
    return 0


cdef int by_place(const void *a, const void *b) noexcept nogil:
    cdef const ChunkHeader *x = (<const ChunkHeader **> a)[0]
    cdef const ChunkHeader *y = (<const ChunkHeader **> b)[0]
    return compare(x, y.topic_id, y.partition, y.base_offset, y.window)


cdef const char *relic_open(Relic *r, const char *path) noexcept nogil:
    """Maps one; NULL, or why not."""
    cdef int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    cdef int64_t size
    cdef const ArenaFile *head
    cdef const ChunkHeader *h
    cdef uint32_t i
    if fd < 0:
        return strerror(errno)
    size = fl_private_size(fd)
    if size < <int64_t> sizeof(ArenaFile):
        file_close(fd)
        if size < 0:
            return strerror(<int> -size)
        return "too short"
    r.map = <uint8_t *> fl_map_read(fd, <size_t> size)
    r.map_bytes = <uint64_t> size
    if r.map == NULL:
        file_close(fd)
        return strerror(errno)
    size = lseek(fd, 0, SEEK_HOLE)              # what was never made ready must not be touched
    file_close(fd)
    head = <const ArenaFile *> r.map
    if size < BLOCK or head.magic != ARENA_MAGIC or head.version != ARENA_VERSION or head.chunk_bytes != CHUNK:
        return "not an arena of this version"
    if head.headers != BLOCK or head.data < head.headers + <uint64_t> head.chunks * sizeof(ChunkHeader) or \
            head.data + <uint64_t> head.chunks * CHUNK != r.map_bytes or <uint64_t> size < head.data:
        return "its header contradicts its size"
    r.path = strdup(path)
    r.extents = <const ChunkHeader **> malloc(<size_t> head.chunks * sizeof(ChunkHeader *) + 1)
    if r.path == NULL or r.extents == NULL:
        return "out of memory"
    for i in range(head.chunks):
        if head.data + (<uint64_t> i + 1) * CHUNK > <uint64_t> size:
            break
        h = (<const ChunkHeader *> (r.map + BLOCK)) + i
        # Written ones count too: a batch that lies half in a file may begin in one.
        if 0 < h.end <= CHUNK and h.start <= h.written <= h.end and h.window >= 0 and h.window % CHUNK == 0:
            r.extents[r.extents_n] = h
            r.extents_n += 1
    qsort(r.extents, <size_t> r.extents_n, sizeof(ChunkHeader *), by_place)
    return NULL


cdef void relic_close(Relic *r) noexcept nogil:
    if r.map != NULL:
        munmap(r.map, r.map_bytes)
    free(r.extents)
    free(r.path)
    r.map = NULL
    r.extents = NULL
    r.extents_n = 0
    r.path = NULL


cdef int relicset_open(RelicSet **out, const char **paths, int n, char *why, size_t why_len) noexcept nogil:
    cdef RelicSet *set = <RelicSet *> calloc(1, sizeof(RelicSet))
    cdef const char *reason
    cdef size_t used
    cdef int i
    cdef int32_t k
    if why_len:
        why[0] = 0
    if set != NULL:
        set.relics = <Relic *> calloc(<size_t> n + 1, sizeof(Relic))
    if set == NULL or set.relics == NULL:
        free(set)
        return -12
    for i in range(n):
        reason = relic_open(&set.relics[set.n], paths[i])
        if reason != NULL:
            relic_close(&set.relics[set.n])
            used = strlen(why)
            snprintf(why + used, why_len - used, "%sarena %s left alone: %s", "; " if used else "", paths[i], reason)
            continue
        for k in range(set.relics[set.n].extents_n):
            set.bytes += set.relics[set.n].extents[k].end - set.relics[set.n].extents[k].written
        set.n += 1
    out[0] = set
    return 0


cdef void relicset_drop(RelicSet *set) noexcept nogil:
    cdef int32_t i
    if set == NULL:
        return
    for i in range(set.n):
        unlink(set.relics[i].path)
        relic_close(&set.relics[i])
    free(set.relics)
    free(set)


cdef const ChunkHeader *extent_at(const Relic *r, const uint8_t *topic_id, int32_t partition, int64_t base_offset,
                                  int64_t at) noexcept nogil:
    """The extent that has the byte at a file position, or NULL."""
    cdef int64_t window = at & ~(<int64_t> CHUNK - 1)
    cdef int32_t low = 0
    cdef int32_t high = r.extents_n
    cdef int32_t middle
    cdef const ChunkHeader *h
    while low < high:
        middle = (low + high) >> 1
        if compare(r.extents[middle], topic_id, partition, base_offset, window) < 0:
            low = middle + 1
        else:
            high = middle
    while low < r.extents_n:
        h = r.extents[low]
        if compare(h, topic_id, partition, base_offset, window) != 0:
            return NULL
        if h.start <= at - window < h.end:
            return h
        low += 1
    return NULL


cdef bint relic_has(const RelicSet *set, int i, const uint8_t *topic_id, int32_t partition, int64_t base_offset, int64_t at) noexcept nogil:
    return extent_at(&set.relics[i], topic_id, partition, base_offset, at) != NULL


cdef int relic_apply(const RelicSet *set, int i, const uint8_t *topic_id, int32_t partition, int64_t base_offset, int64_t at,
                     const char *path, int64_t *end) noexcept nogil:
    cdef const Relic *r = &set.relics[i]
    cdef const ArenaFile *head = <const ArenaFile *> r.map
    cdef const ChunkHeader *h = extent_at(r, topic_id, partition, base_offset, at)
    cdef const uint8_t *data
    cdef int64_t n
    cdef int fd
    cdef int err = 0
    end[0] = at
    if h == NULL:
        return 0
    fd = file_open_buffered(path, True)
    if fd < 0:
        return -fd
    while h != NULL and not err:
        data = r.map + head.data + <uint64_t> (h - <const ChunkHeader *> (r.map + head.headers)) * CHUNK
        n = h.window + h.end - end[0]
        err = file_write(fd, data + (end[0] - h.window), <size_t> n, end[0])
        end[0] += n
        h = extent_at(r, topic_id, partition, base_offset, end[0])
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)
    file_close(fd)
    return err
