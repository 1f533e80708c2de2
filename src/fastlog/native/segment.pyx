"""Segments of a log. See segment.pxd."""
from libc.errno cimport ENOENT, ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memmove, memset
from fastlog.native.aborted cimport ABORTED_ENTRY, aborted_covers, aborted_decode, aborted_encode, aborted_forget, aborted_least
from fastlog.native.arena cimport arena_drop_set
from fastlog.native.files cimport (
    PATH_MAX_, dir_sync, file_close, file_get, file_open, file_put, file_put_at, file_rename, file_trim, file_unlink,
    files_drop_indexes, path_of,
)
from fastlog.native.index cimport (
    OFFSET_ENTRY, TIME_ENTRY, Index, index_bytes_held, index_covers, index_covers_time, index_decode, index_encode_offsets,
    index_encode_times, index_forget, index_free, index_init, index_seal,
)
from fastlog.native.log cimport position_set
from fastlog.native.producers cimport Producers, producers_free, producers_init, producers_load
from fastlog.native.promise cimport log_fail
from fastlog.native.recycle cimport recycle_put
from fastlog.native.scan cimport Scan, scan_run
from fastlog.native.store cimport LogJob, LogState, Segment, StoreState, TIME_UNKNOWN, log_ready
from fastlog.native.work cimport Job, WORK_LATER, WORK_SOON, work_submit

cdef extern from "check.h" nogil:
    void FL_ASSERT(bint)


cdef enum:
    INDEX_MAX = 1073741824          # bytes of an index file that is read
    KEEP_AGAIN_NS = 1000000000      # after entries could not be written

cdef int64_t OFFSETS_END = 0x7FFFFFFFFFFFFFFF


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
    seg.aborted_least = OFFSETS_END
    seg.checkpoint = -1
    seg.fd = -1
    log.segments[log.segments_n] = seg
    log.segments_n += 1
    return seg


cdef size_t loaded_bytes(const Segment *seg) noexcept nogil:
    """Of indexes that can be loaded again."""
    if seg.prefix != NULL:
        return index_bytes_held(seg.prefix)
    return index_bytes_held(seg.index) if seg.sealed and seg.index != NULL else 0


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
    s.index_bytes -= loaded_bytes(seg)


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
    s.index_bytes += loaded_bytes(seg)


cdef void drop_index(Index **ix) noexcept nogil:
    if ix[0] != NULL:
        index_free(ix[0])
        free(ix[0])
        ix[0] = NULL


cdef void segment_free(StoreState *s, Segment *seg) noexcept nogil:
    FL_ASSERT(seg.users == 0 and not seg.opening)
    if s != NULL:
        unlist(s, seg)
        if s.arena != NULL:
            arena_drop_set(s.arena, &seg.chunks)
    drop_index(&seg.index)
    drop_index(&seg.prefix)
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
            drop_index(&seg.prefix)
            if seg.sealed:
                drop_index(&seg.index)
                file_close(seg.fd)
                seg.fd = -1
        seg = before


cdef void segment_opened(StoreState *s, Segment *seg) noexcept nogil:
    list_first(s, seg)
    close_oldest(s)


cdef int rebuild_index(const LogJob *j) noexcept nogil:
    """The index of a rolled segment from its batches' headers, for when its files are missing or wrong. Producer state at the segment's
    start, where there is a file of it, says where the transactions that it ends began."""
    cdef Scan scan
    cdef Producers producers
    cdef char path[PATH_MAX_]
    cdef uint8_t *data = NULL
    cdef size_t n = 0
    cdef int err
    memset(&scan, 0, sizeof(Scan))
    producers_init(&producers)
    path_of(path, j.log.path, j.index.base_offset, ".snapshot")
    if file_get(path, INDEX_MAX, &data, &n) == 0:
        producers_load(&producers, data, n)
    free(data)
    index_free(j.index)
    scan.producers = &producers
    scan.fd = j.fd
    scan.to = j.to
    scan.interval = j.least
    scan.gaps = True
    scan.index = j.index
    scan.offset = j.index.base_offset
    scan.until = OFFSETS_END
    err = scan_run(&scan)
    producers_free(&producers)
    return err


cdef int load_aborted(const LogJob *j) noexcept nogil:
    """The aborted transactions of a segment; that it has no file of them says that there are none."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *data = NULL
    cdef size_t n = 0
    cdef int err
    path_of(path, j.log.path, j.index.base_offset, ".txnindex")
    err = file_get(path, INDEX_MAX, &data, &n)
    if err == 0:
        err = aborted_decode(&j.index.aborted, data, n, j.index.base_offset)
    free(data)
    return 0 if err == ENOENT else err


cdef void open_run(Job *job) noexcept nogil:
    """The whole index, and a descriptor if the segment has none."""
    cdef LogJob *j = <LogJob *> job
    cdef char path[PATH_MAX_]
    cdef uint8_t *offsets = NULL
    cdef uint8_t *times = NULL
    cdef size_t offsets_len = 0
    cdef size_t times_len = 0
    cdef bint found = False
    j.error = path_of(path, j.log.path, j.index.base_offset, ".log")
    if j.error:
        return
    j.fd = file_open(path, False, False, &j.direct)
    if j.fd < 0:
        j.error = -j.fd
        return
    path_of(path, j.log.path, j.index.base_offset, ".index")
    if file_get(path, INDEX_MAX, &offsets, &offsets_len) == 0:
        path_of(path, j.log.path, j.index.base_offset, ".timeindex")
        found = file_get(path, INDEX_MAX, &times, &times_len) == 0 and \
            index_decode(j.index, offsets, offsets_len, times, times_len, j.to, j.offset) == 0 and load_aborted(j) == 0
    free(offsets)
    free(times)
    if not found:
        j.error = rebuild_index(j)
        index_seal(j.index)
        if j.error:
            file_close(j.fd)


cdef void open_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    cdef Segment *seg = j.segment
    seg.opening = False
    seg.users -= 1
    log.jobs -= 1
    log.reads_due = True
    log_ready(log)
    unlist(log.store, seg)
    if j.error:
        seg.failed = True
        seg.outdated = False
        drop_index(&j.index)
    else:
        if seg.sealed and seg.fd < 0:
            seg.fd = j.fd
            seg.direct = j.direct
        else:
            file_close(j.fd)
        if seg.outdated:
            drop_index(&j.index)        # who needs it asks again
        elif seg.sealed:
            drop_index(&seg.index)
            seg.index = j.index
            seg.max_timestamp = seg.index.max_timestamp
            seg.max_timestamp_offset = seg.index.max_timestamp_offset
            seg.aborted_least = aborted_least(&seg.index.aborted)
        else:
            drop_index(&seg.prefix)
            seg.prefix = j.index
        seg.outdated = False
        segment_opened(log.store, seg)
    free(j)
    if seg.deleted and seg.users == 0:
        segment_free(log.store, seg)


cdef void open_start(LogState *log, Segment *seg) noexcept nogil:
    cdef LogJob *j
    if seg.opening or seg.failed or seg.swapping:
        return
    j = <LogJob *> calloc(1, sizeof(LogJob))
    if j != NULL:
        j.index = <Index *> malloc(sizeof(Index))
    if j == NULL or j.index == NULL:
        free(j)
        seg.failed = True
        return
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
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_SOON)


cdef inline void used_now(StoreState *s, Segment *seg) noexcept nogil:
    if seg.listed and s.open_first != seg:
        unlist(s, seg)
        list_first(s, seg)


cdef bint segment_ready(LogState *log, Segment *seg) noexcept nogil:
    if seg.fd >= 0 and seg.index != NULL:
        used_now(log.store, seg)
        return True
    open_start(log, seg)
    return False


cdef const Index *segment_index(LogState *log, Segment *seg, int64_t offset) noexcept nogil:
    if index_covers(seg.index, offset):
        return seg.index
    if seg.prefix == NULL:
        open_start(log, seg)
    else:
        used_now(log.store, seg)
    return seg.prefix


cdef const Index *segment_time_index(LogState *log, Segment *seg, int64_t timestamp) noexcept nogil:
    if index_covers_time(seg.index, timestamp):
        return seg.index
    if seg.prefix == NULL:
        open_start(log, seg)
    else:
        used_now(log.store, seg)
    return seg.prefix


cdef const Index *segment_aborted_index(LogState *log, Segment *seg, int64_t offset) noexcept nogil:
    if aborted_covers(&seg.index.aborted, offset):
        return seg.index
    if seg.prefix == NULL:
        open_start(log, seg)
    else:
        used_now(log.store, seg)
    return seg.prefix


cdef bint segment_failed(Segment *seg) noexcept nogil:
    cdef bint failed = seg.failed
    seg.failed = False
    return failed


cdef void segment_use(Segment *seg) noexcept nogil:
    seg.users += 1


cdef void segment_unuse(StoreState *s, Segment *seg) noexcept nogil:
    seg.users -= 1
    if seg.users == 0 and seg.deleted:
        segment_free(s, seg)


cdef int put_entries(const char *path, int64_t base_offset, const char *suffix, const uint8_t *data, size_t n, int64_t at) noexcept nogil:
    """Index entries at a position of their file, where it then ends."""
    cdef char name[PATH_MAX_]
    cdef int err = path_of(name, path, base_offset, suffix)
    return err if err else file_put_at(name, data, n, at)


cdef int segment_put_aborted(const char *path, const Index *ix) noexcept nogil:
    cdef uint8_t *data
    cdef size_t n
    cdef int err
    if ix.aborted.gone + ix.aborted.n == 0 and ix.aborted.kept == 0:
        return 0
    data = <uint8_t *> malloc(<size_t> ix.aborted.n * ABORTED_ENTRY + 1)
    if data == NULL:
        return ENOMEM
    n = aborted_encode(&ix.aborted, data)
    err = put_entries(path, ix.base_offset, ".txnindex", data, n, <int64_t> ix.aborted.kept * ABORTED_ENTRY)
    free(data)
    return err


cdef int segment_write_files(const char *path, Segment *seg, int64_t snapshot_offset) noexcept nogil:
    cdef char name[64]
    cdef Index *ix = seg.index
    cdef uint8_t *data = <uint8_t *> malloc(<size_t> (ix.offsets_n + ix.times_n) * TIME_ENTRY + 1)
    cdef size_t n
    cdef int err
    if data == NULL:
        return ENOMEM
    err = segment_put_aborted(path, ix)
    if err:
        free(data)
        return err
    n = <size_t> index_encode_times(ix, data) * TIME_ENTRY
    err = put_entries(path, seg.base_offset, ".timeindex", data, n, <int64_t> ix.times_kept * TIME_ENTRY)
    if not err:
        n = <size_t> index_encode_offsets(ix, data) * OFFSET_ENTRY
        err = put_entries(path, seg.base_offset, ".index", data, n, <int64_t> ix.offsets_kept * OFFSET_ENTRY)
    free(data)
    if not err and seg.snapshot != NULL:
        snprintf(name, 64, "%020lld.snapshot", <long long> snapshot_offset)
        err = file_put(path, name, seg.snapshot, seg.snapshot_len)
    return err if err else dir_sync(path)


cdef void keep_run(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef Segment *seg = j.segment
    cdef char name[64]
    # Offsets last: of the others there may not be fewer than they say, if the process dies between.
    if j.aborted_len:
        j.error = put_entries(j.log.path, seg.base_offset, ".txnindex", j.aborted, j.aborted_len, j.aborted_at)
    if not j.error:
        j.error = put_entries(j.log.path, seg.base_offset, ".timeindex", j.more, j.more_len, j.to)
    if not j.error:
        j.error = put_entries(j.log.path, seg.base_offset, ".index", j.data, j.len, j.from_)
    if not j.error and j.snapshot != NULL:
        snprintf(name, 64, "%020lld.snapshot", <long long> j.offset)
        j.error = file_put(j.log.path, name, j.snapshot, j.snapshot_len)
        if not j.error:
            j.error = dir_sync(j.log.path)
        if not j.error:
            drop_snapshot(j.log.path, j.least)


cdef void drop_snapshot(const char *path, int64_t offset) noexcept nogil:
    """Removes the snapshot of an earlier checkpoint, if there is one (-1: none)."""
    cdef char name[PATH_MAX_]
    if offset >= 0 and path_of(name, path, offset, ".snapshot") == 0:
        file_unlink(name)


cdef void keep_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    cdef Segment *seg = j.segment
    log.jobs -= 1
    seg.users -= 1
    seg.preparing -= 1
    seg.keeping = False
    if j.error:                     # the entries stay in memory, for now
        log.keep_after = log.store.now_ns + KEEP_AGAIN_NS
    else:
        index_forget(seg.index, <int32_t> ((j.from_ + <int64_t> j.len) // OFFSET_ENTRY),
                     <int32_t> ((j.to + <int64_t> j.more_len) // TIME_ENTRY))
        aborted_forget(&seg.index.aborted, <int32_t> ((j.aborted_at + <int64_t> j.aborted_len) // ABORTED_ENTRY))
        seg.outdated = seg.opening
        if seg.prefix != NULL:      # there is more now
            unlist(log.store, seg)
            drop_index(&seg.prefix)
    free(j.data)
    free(j.more)
    free(j.aborted)
    free(j.snapshot)
    free(j)
    log_ready(log)


cdef void segment_keep(LogState *log, Segment *seg, uint8_t *snapshot, size_t snapshot_len, int64_t offset, int64_t before) noexcept nogil:
    cdef LogJob *j = <LogJob *> calloc(1, sizeof(LogJob))
    cdef Index *ix = seg.index
    if j != NULL:
        j.data = <uint8_t *> malloc(<size_t> ix.offsets_n * OFFSET_ENTRY + 1)
        j.more = <uint8_t *> malloc(<size_t> ix.times_n * TIME_ENTRY + 1)
        j.aborted = <uint8_t *> malloc(<size_t> ix.aborted.n * ABORTED_ENTRY + 1)
    if j == NULL or j.data == NULL or j.more == NULL or j.aborted == NULL:
        if j != NULL:
            free(j.data)
            free(j.more)
            free(j.aborted)
        free(j)
        free(snapshot)
        return
    j.job.run = keep_run
    j.job.done = keep_done
    j.log = log
    j.segment = seg
    j.from_ = <int64_t> ix.offsets_kept * OFFSET_ENTRY
    j.to = <int64_t> ix.times_kept * TIME_ENTRY
    j.len = <size_t> index_encode_offsets(ix, j.data) * OFFSET_ENTRY
    j.more_len = <size_t> index_encode_times(ix, j.more) * TIME_ENTRY
    j.aborted_len = aborted_encode(&ix.aborted, j.aborted)
    j.aborted_at = <int64_t> ix.aborted.kept * ABORTED_ENTRY
    j.snapshot = snapshot
    j.snapshot_len = snapshot_len
    j.offset = offset
    j.least = before
    seg.keeping = True
    seg.preparing += 1
    seg.users += 1
    log.jobs += 1
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_LATER)


cdef void seal_run(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    j.error = file_trim(j.fd, j.to)
    if j.error:
        return
    if segment_write_files(j.log.path, j.segment, j.offset) == 0:
        if j.segment.checkpoint != j.offset:        # one at the segment's very end is that of its end
            drop_snapshot(j.log.path, j.segment.checkpoint)
        return
    # A full disk, say. No index is better than half of one: whoever reads the segment makes it anew from the batches.
    files_drop_indexes(j.log.path, j.segment.base_offset, "")


cdef void seal_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    cdef Segment *seg = j.segment
    log.jobs -= 1
    log.sealing_segment = NULL
    seg.users -= 1
    free(seg.snapshot)
    seg.snapshot = NULL
    if j.error:
        log_fail(log, "trimming a segment", j.error)
    else:
        unlist(log.store, seg)
        drop_index(&seg.prefix)
        seg.outdated = seg.opening
        seg.sealed = True
        if seg.index.offsets_gone or seg.index.times_gone or seg.index.aborted.gone:
            drop_index(&seg.index)  # only its newest entries; all are loaded when someone asks
        if not seg.deleted:
            segment_opened(log.store, seg)
        seal_next(log)
    free(j)
    log_ready(log)
    segments_remove_due(log)


cdef void segment_seal(LogState *log, Segment *seg) noexcept nogil:
    seg.seal_due = True
    seal_next(log)


cdef void seal_next(LogState *log) noexcept nogil:
    """Seals the oldest segment that waits for it. Recovery believes the sizes of all segments before one that was sealed."""
    cdef LogJob *j
    cdef Segment *seg = NULL
    cdef int32_t i = log.segments_n - 1
    if log.sealing_segment != NULL:
        return
    while i >= 0 and not log.segments[i].sealed:
        if log.segments[i].seal_due:
            seg = log.segments[i]
        i -= 1
    if seg == NULL:
        return
    j = <LogJob *> calloc(1, sizeof(LogJob))
    if j == NULL:
        return
    j.job.run = seal_run
    j.job.done = seal_done
    j.log = log
    j.segment = seg
    j.fd = seg.fd
    j.to = seg.size
    j.offset = segment_next_offset(log, seg)
    log.sealing_segment = seg
    seg.users += 1
    log.jobs += 1
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_LATER)


cdef void remove_run(Job *job) noexcept nogil:
    """Renames first, so that a crash half-way leaves nothing that looks like a segment; then gives the blocks back.

    Oldest first, each durably, and no further after a failure: a segment that came back while a newer one is gone would leave a hole,
    where recovery ends the log. Those left are removed after the next start.
    """
    cdef LogJob *j = <LogJob *> job
    cdef char path[PATH_MAX_]
    cdef char gone[PATH_MAX_]
    cdef int64_t *bases = <int64_t *> j.data
    cdef size_t i
    for i in range(j.len):
        path_of(path, j.log.path, bases[i], ".log")
        path_of(gone, j.log.path, bases[i], ".log.deleted")
        j.error = file_rename(path, gone)
        if j.error == 0 or j.error == ENOENT:
            j.error = dir_sync(j.log.path)
        if j.error:
            return
        files_drop_indexes(j.log.path, bases[i], "")
        path_of(path, j.log.path, bases[i], ".snapshot")
        file_unlink(path)
        j.removed += 1
        segment_recycle(j, gone, j.log.path)
        file_unlink(gone)


cdef void segment_recycle(LogJob *j, const char *path, const char *home) noexcept nogil:
    cdef int64_t written = 0
    if j.recycle and recycle_put(path, home, j.segment_bytes, j.recycle, j.reserve, &written) == 0:
        j.recycled += 1
    j.zeroed += written


cdef void segments_count(LogState *log, const LogJob *j) noexcept nogil:
    log.store.stats.segments_removed += j.removed
    log.store.stats.segments_recycled += j.recycled
    log.store.stats.zeroed_bytes += <uint64_t> j.zeroed
    log.store.stats.written_bytes += <uint64_t> j.zeroed


cdef void remove_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    log.jobs -= 1
    segments_count(log, j)
    log.removing = j.error != 0         # then none is removed any more: a newer one that is gone would leave a hole
    log_ready(log)
    free(j.data)
    free(j)
    segments_remove_due(log)


cdef void segment_drop(StoreState *s, Segment *seg) noexcept nogil:
    arena_drop_set(s.arena, &seg.chunks)
    seg.deleted = True
    unlist(s, seg)
    if seg.users == 0:
        segment_free(s, seg)


cdef void segments_remove_due(LogState *log) noexcept nogil:
    if not log.part.at.offline and log.segments_n > 1 and log.segments[1].base_offset <= log.part.at.log_start:
        segments_remove_below(log, log.part.at.log_start)


cdef void segments_remove_below(LogState *log, int64_t offset) noexcept nogil:
    cdef StoreState *s = log.store
    cdef Segment *seg
    cdef LogJob *j
    cdef int64_t bytes = 0
    cdef int32_t n = 0
    cdef int32_t i
    if log.removing:
        return
    while n + 1 < log.segments_n and log.segments[n + 1].base_offset <= offset and log.segments[n].sealed and \
            not log.segments[n].swapping and not (log.naming and log.segments[n + 1] == log.active):
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
    if log.durable_seen:                # elsewhere the space would be of no use
        j.recycle = log.settings.recycle_bytes
    j.segment_bytes = log.settings.segment_bytes
    j.reserve = log.settings.disk_reserve
    j.len = <size_t> n
    for i in range(n):
        seg = log.segments[i]
        (<int64_t *> j.data)[i] = seg.base_offset
        bytes += seg.size
        segment_drop(s, seg)
    memmove(log.segments, log.segments + n, <size_t> (log.segments_n - n) * sizeof(Segment *))
    log.segments_n -= n
    log.removing = True
    position_set(&log.part.at.bytes, log.part.at.bytes - bytes)
    log.jobs += 1
    work_submit(s.config.pool, s.config.home, &j.job, WORK_LATER)
