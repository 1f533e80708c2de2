"""Segments of a log. See segment.pxd."""
from libc.errno cimport ENOENT, ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memmove, memset
from fastlog.native.arena cimport arena_drop_set
from fastlog.native.files cimport (
    PATH_MAX_, dir_sync, file_close, file_get, file_open, file_put, file_rename, file_trim, file_unlink, path_of,
)
from fastlog.native.index cimport (
    OFFSET_ENTRY, TIME_ENTRY, Index, index_bytes_held, index_decode, index_encode_offsets, index_encode_times, index_free, index_init,
    index_seal,
)
from fastlog.native.log cimport position_set
from fastlog.native.scan cimport Scan, scan_run
from fastlog.native.store cimport LogJob, LogState, Segment, StoreState, TIME_UNKNOWN, log_ready
from fastlog.native.work cimport Job, WORK_LATER, WORK_SOON, work_submit

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint)


cdef Segment *segment_add(LogState *log, int64_t base_offset, int64_t start, int64_t size) noexcept nogil:
    cdef Segment *seg
    cdef Segment **grown
    if log.segments_n == log.segments_cap:
        grown = <Segment **> realloc(log.segments, <size_t> (log.segments_cap * 2 + 4) * sizeof(Segment *))
        if grown == NULL:
            return NULL
        log.segments = grown
        log.segments_cap = log.segments_cap * 2 + 4
    seg = <Segment *> calloc(1, sizeof(Segment))
    if seg == NULL:
        return NULL
    seg.log = log
    seg.base_offset = base_offset
    seg.start = start
    seg.size = size
    seg.first_timestamp = -1
    seg.max_timestamp = TIME_UNKNOWN
    seg.fd = -1
    log.segments[log.segments_n] = seg
    log.segments_n += 1
    return seg


cdef void unlist(StoreState *s, Segment *seg) noexcept nogil:
    if not seg.listed:
        return
    if seg.prev != NULL:
        seg.prev.next = seg.next
    else:
        s.open_first = seg.next
    if seg.next != NULL:
        seg.next.prev = seg.prev
    else:
        s.open_last = seg.prev
    seg.next = NULL
    seg.prev = NULL
    seg.listed = False
    s.open_n -= 1
    if seg.index != NULL:
        s.index_bytes -= index_bytes_held(seg.index)


cdef void list_first(StoreState *s, Segment *seg) noexcept nogil:
    seg.prev = NULL
    seg.next = s.open_first
    if s.open_first != NULL:
        s.open_first.prev = seg
    else:
        s.open_last = seg
    s.open_first = seg
    seg.listed = True
    s.open_n += 1
    if seg.index != NULL:
        s.index_bytes += index_bytes_held(seg.index)


cdef void drop_index(Segment *seg) noexcept nogil:
    if seg.index != NULL:
        index_free(seg.index)
        free(seg.index)
        seg.index = NULL


cdef void segment_free(StoreState *s, Segment *seg) noexcept nogil:
    FL_ASSERT(seg.users == 0 and not seg.opening)
    if s != NULL:
        unlist(s, seg)
        if s.arena != NULL:
            arena_drop_set(s.arena, &seg.chunks)
    drop_index(seg)
    file_close(seg.fd)
    free(seg.snapshot)
    free(seg)


cdef Segment *segment_of(const LogState *log, int64_t offset) noexcept nogil:
    cdef int32_t low = 0
    cdef int32_t high = log.segments_n - 1
    cdef int32_t middle
    if offset >= log.active.base_offset:
        return log.active
    while low < high:               # the last one whose base is not past the offset
        middle = (low + high + 1) >> 1
        if log.segments[middle].base_offset <= offset:
            low = middle
        else:
            high = middle - 1
    return log.segments[low]


cdef int64_t segment_next_offset(const LogState *log, const Segment *seg) noexcept nogil:
    cdef int32_t i
    if seg == log.active:
        return log.part.at.log_end
    i = log.segments_n - 1
    while log.segments[i] != seg:
        i -= 1
    return log.segments[i + 1].base_offset


cdef void close_oldest(StoreState *s) noexcept nogil:
    """Closes open segments used longest ago until the bounds hold; those in use stay."""
    cdef Segment *seg = s.open_last
    cdef Segment *before
    while seg != NULL and (s.open_n > s.open_max or s.index_bytes > s.index_bytes_max) and seg != s.open_first:
        before = seg.prev
        if seg.users == 0:
            unlist(s, seg)
            drop_index(seg)
            file_close(seg.fd)
            seg.fd = -1
        seg = before


cdef void segment_opened(StoreState *s, Segment *seg) noexcept nogil:
    list_first(s, seg)
    close_oldest(s)


cdef int rebuild_index(const LogJob *j) noexcept nogil:
    """The index of a rolled segment from its batches' headers, for when its files are missing or wrong."""
    cdef Scan scan
    memset(&scan, 0, sizeof(Scan))
    index_free(j.index)
    scan.fd = j.fd
    scan.to = j.to
    scan.interval = j.least
    scan.gaps = True
    scan.index = j.index
    scan.offset = j.index.base_offset
    return scan_run(&scan)


cdef void open_run(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef char path[PATH_MAX_]
    cdef uint8_t *offsets = NULL
    cdef uint8_t *times = NULL
    cdef size_t offsets_len = 0
    cdef size_t times_len = 0
    cdef int bad
    j.error = path_of(path, j.log.path, j.index.base_offset, ".log")
    if j.error:
        return
    j.fd = file_open(path, False, False, &j.direct)
    if j.fd < 0:
        j.error = -j.fd
        return
    path_of(path, j.log.path, j.index.base_offset, ".index")
    bad = file_get(path, 1 << 30, &offsets, &offsets_len)
    path_of(path, j.log.path, j.index.base_offset, ".timeindex")
    if not bad:
        bad = file_get(path, 1 << 30, &times, &times_len)
    if not bad:
        bad = index_decode(j.index, offsets, offsets_len, times, times_len, j.to, j.offset)
    free(offsets)
    free(times)
    if bad:
        j.error = rebuild_index(j)
        index_seal(j.index)


cdef void open_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    cdef Segment *seg = j.segment
    seg.opening = False
    seg.users -= 1
    log.jobs -= 1
    log.reads_due = True
    log_ready(log)
    if j.error:
        file_close(j.fd)
        index_free(j.index)
        free(j.index)
        seg.fd = -2                 # waiting reads fail, and the next one tries again
    else:
        seg.fd = j.fd
        seg.direct = j.direct
        seg.index = j.index
        seg.max_timestamp = seg.index.max_timestamp
        seg.max_timestamp_offset = seg.index.max_timestamp_offset
        segment_opened(log.store, seg)
    free(j)
    if seg.deleted and seg.users == 0:
        if seg.fd == -2:
            seg.fd = -1
        segment_free(log.store, seg)


cdef bint segment_ready(LogState *log, Segment *seg) noexcept nogil:
    cdef StoreState *s = log.store
    cdef LogJob *j
    if seg.fd >= 0 and seg.index != NULL:
        if seg.listed and s.open_first != seg:
            unlist(s, seg)
            list_first(s, seg)
        return True
    if seg.opening or seg.fd == -2:
        return False
    j = <LogJob *> calloc(1, sizeof(LogJob))
    if j != NULL:
        j.index = <Index *> malloc(sizeof(Index))
    if j == NULL or j.index == NULL:
        free(j)
        seg.fd = -2
        return False
    index_init(j.index, seg.base_offset)
    j.job.run = open_run
    j.job.done = open_done
    j.log = log
    j.segment = seg
    j.fd = -1
    j.to = seg.size
    j.offset = segment_next_offset(log, seg)
    j.least = log.settings.index_interval_bytes
    seg.opening = True
    seg.users += 1
    log.jobs += 1
    work_submit(s.config.pool, s.config.home, &j.job, WORK_SOON)
    return False


cdef void segment_use(Segment *seg) noexcept nogil:
    seg.users += 1


cdef void segment_unuse(StoreState *s, Segment *seg) noexcept nogil:
    seg.users -= 1
    if seg.users == 0 and seg.deleted:
        segment_free(s, seg)


cdef int segment_write_files(const char *path, Segment *seg, int64_t snapshot_offset) noexcept nogil:
    """The time index, the snapshot, and last the offset index: recovery takes it as the sign that the rest is there."""
    cdef char name[64]
    cdef uint8_t *data
    cdef Index *ix = seg.index
    cdef int err
    data = <uint8_t *> malloc(<size_t> (ix.offsets_n + ix.times_n) * TIME_ENTRY + 1)
    if data == NULL:
        return ENOMEM
    index_encode_times(ix, data)
    snprintf(name, 64, "%020lld.timeindex", <long long> seg.base_offset)
    err = file_put(path, name, data, <size_t> ix.times_n * TIME_ENTRY)
    if not err and seg.snapshot != NULL:
        snprintf(name, 64, "%020lld.snapshot", <long long> snapshot_offset)
        err = file_put(path, name, seg.snapshot, seg.snapshot_len)
    if not err:
        index_encode_offsets(ix, data)
        snprintf(name, 64, "%020lld.index", <long long> seg.base_offset)
        err = file_put(path, name, data, <size_t> ix.offsets_n * OFFSET_ENTRY)
    free(data)
    return err if err else dir_sync(path)


cdef void seal_run(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    j.error = file_trim(j.fd, j.to)
    if not j.error:
        j.error = segment_write_files(j.log.path, j.segment, j.offset)


cdef void seal_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    cdef Segment *seg = j.segment
    log.jobs -= 1
    seg.users -= 1
    free(seg.snapshot)
    seg.snapshot = NULL
    # When its files could not be written the segment stays as it is, open: its bytes are durable, and recovery rebuilds the rest.
    seg.sealed = not j.error
    if seg.sealed and not seg.deleted:
        segment_opened(log.store, seg)
    free(j)
    log_ready(log)
    if seg.deleted and seg.users == 0:
        segment_free(log.store, seg)


cdef void segment_seal(LogState *log, Segment *seg) noexcept nogil:
    cdef LogJob *j = <LogJob *> calloc(1, sizeof(LogJob))
    if j == NULL:
        return
    j.job.run = seal_run
    j.job.done = seal_done
    j.log = log
    j.segment = seg
    j.fd = seg.fd
    j.to = seg.size
    j.offset = segment_next_offset(log, seg)
    seg.users += 1
    log.jobs += 1
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_LATER)


cdef void remove_run(Job *job) noexcept nogil:
    """Renames first, so that a crash half-way leaves nothing that looks like a segment; then gives the blocks back."""
    cdef LogJob *j = <LogJob *> job
    cdef char path[PATH_MAX_]
    cdef char gone[PATH_MAX_]
    cdef int64_t *bases = <int64_t *> j.data
    cdef size_t i
    cdef int err
    for i in range(j.len):
        path_of(path, j.log.path, bases[i], ".log")
        path_of(gone, j.log.path, bases[i], ".log.deleted")
        err = file_rename(path, gone)
        if err and err != ENOENT:
            j.error = err
        path_of(path, j.log.path, bases[i], ".index")
        file_unlink(path)
        path_of(path, j.log.path, bases[i], ".timeindex")
        file_unlink(path)
        path_of(path, j.log.path, bases[i], ".txnindex")
        file_unlink(path)
        path_of(path, j.log.path, bases[i], ".snapshot")
        file_unlink(path)
    dir_sync(j.log.path)
    for i in range(j.len):
        path_of(gone, j.log.path, bases[i], ".log.deleted")
        file_unlink(gone)


cdef void remove_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    j.log.jobs -= 1
    log_ready(j.log)
    free(j.data)
    free(j)


cdef void segments_remove_below(LogState *log, int64_t offset) noexcept nogil:
    cdef StoreState *s = log.store
    cdef Segment *seg
    cdef LogJob *j
    cdef int64_t bytes = 0
    cdef int32_t n = 0
    cdef int32_t i
    while n + 1 < log.segments_n and log.segments[n + 1].base_offset <= offset and log.segments[n].sealed:
        n += 1
    if n == 0:
        return
    j = <LogJob *> calloc(1, sizeof(LogJob))
    if j != NULL:
        j.data = <uint8_t *> malloc(<size_t> n * sizeof(int64_t))
    if j == NULL or j.data == NULL:
        free(j)
        return
    j.job.run = remove_run
    j.job.done = remove_done
    j.log = log
    j.len = <size_t> n
    for i in range(n):
        seg = log.segments[i]
        (<int64_t *> j.data)[i] = seg.base_offset
        bytes += seg.size
        arena_drop_set(s.arena, &seg.chunks)
        seg.deleted = True
        unlist(s, seg)
        if seg.users == 0:
            segment_free(s, seg)
    memmove(log.segments, log.segments + n, <size_t> (log.segments_n - n) * sizeof(Segment *))
    log.segments_n -= n
    position_set(&log.part.at.bytes, log.part.at.bytes - bytes)
    log.jobs += 1
    work_submit(s.config.pool, s.config.home, &j.job, WORK_LATER)
