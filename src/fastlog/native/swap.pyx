"""See swap.pxd."""
from libc.errno cimport EBADMSG, ENOENT, errno
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memmove, memset, strerror, strlen
from fastlog.native.files cimport (
    PATH_MAX_, dir_sync, file_close, file_exists, file_open, file_rename, file_size, file_size_at, file_unlink, path_of,
)
from fastlog.native.log cimport LogCtl, position_set
from fastlog.native.promise cimport log_fail
from fastlog.native.scan cimport Scan, scan_run
from fastlog.native.segment cimport segment_drop, segments_remove_due
from fastlog.native.store cimport (
    KAFKA_STORAGE_ERROR, LogJob, LogState, OFFSET_OUT_OF_RANGE, Segment, TIME_UNKNOWN, UNKNOWN_TOPIC_OR_PARTITION, log_ready,
)
from fastlog.native.work cimport Job, WORK_SOON, work_submit

cdef extern from "<dirent.h>" nogil:
    struct dirent:
        char d_name[256]
    ctypedef struct DIR:
        pass
    DIR *opendir(const char *path)
    dirent *readdir(DIR *d)
    int closedir(DIR *d)

cdef extern from "<stdlib.h>" nogil:
    long long strtoll(const char *s, char **end, int base)
    int strcmp(const char *a, const char *b)

cdef enum:
    DIGITS = 20
    BATCH = 64                      # old segments that are listed at once

cdef int64_t OFFSETS_END = 0x7FFFFFFFFFFFFFFF


# ---- files

cdef int rename_all(const char *path, int64_t base, const char *from_, const char *to) noexcept nogil:
    """The index files of a segment, as far as they are there, then its log, which must be: durable names at each of both steps."""
    cdef char old[PATH_MAX_]
    cdef char new[PATH_MAX_]
    cdef char suffix[32]
    cdef const char *kinds[4]
    cdef int i
    cdef int err = 0
    kinds[0] = ".index"
    kinds[1] = ".timeindex"
    kinds[2] = ".txnindex"
    kinds[3] = ".log"
    for i in range(4):
        if i == 3 and not err:
            err = dir_sync(path)    # what is done so far must not come after the log's name
        if err:
            return err
        snprintf(suffix, sizeof(suffix), "%s%s", kinds[i], from_)
        path_of(old, path, base, suffix)
        snprintf(suffix, sizeof(suffix), "%s%s", kinds[i], to)
        path_of(new, path, base, suffix)
        err = file_rename(old, new)
        if err == ENOENT and i < 3:
            err = 0
    return err if err else dir_sync(path)


cdef int retire(const char *path, int64_t base, bint first) noexcept nogil:
    """Takes an old segment's files away. Its log is kept as .deleted until the end; its snapshot stays where the new segment begins."""
    cdef char old[PATH_MAX_]
    cdef char new[PATH_MAX_]
    cdef int err
    path_of(old, path, base, ".log")
    path_of(new, path, base, ".log.deleted")
    err = file_rename(old, new)
    if err and err != ENOENT:
        return err
    path_of(old, path, base, ".index")
    err = file_unlink(old)
    path_of(old, path, base, ".timeindex")
    if not err:
        err = file_unlink(old)
    path_of(old, path, base, ".txnindex")
    if not err:
        err = file_unlink(old)
    path_of(old, path, base, ".snapshot")
    if not err and not first:
        err = file_unlink(old)
    return err


cdef int64_t numbered(const char *name, const char *suffix) noexcept nogil:
    """The number of a file of that suffix, or -1."""
    cdef int i
    if strlen(name) < DIGITS or strcmp(name + DIGITS, suffix) != 0:
        return -1
    for i in range(DIGITS):
        if name[i] < b'0' or name[i] > b'9':
            return -1
    return strtoll(name, NULL, 10)


cdef int next_number(const char *path, const char *suffix, int64_t from_, int64_t *found) noexcept nogil:
    """The smallest number, from `from_` on, of a file of that suffix; -1 when there is none. 0 or an errno."""
    cdef DIR *d = opendir(path)
    cdef dirent *entry
    cdef int64_t number
    found[0] = -1
    if d == NULL:
        return errno
    while True:
        entry = readdir(d)
        if entry == NULL:
            break
        number = numbered(entry.d_name, suffix)
        if number >= from_ and (found[0] < 0 or number < found[0]):
            found[0] = number
    closedir(d)
    return 0


cdef int end_of(const char *path, int64_t base, int64_t *end) noexcept nogil:
    """Offset past the last batch of a .log.swap. 0 or an errno: EBADMSG when it is not whole, so that nothing may give way to it."""
    cdef char name[PATH_MAX_]
    cdef Scan scan
    cdef bint direct
    cdef int err
    path_of(name, path, base, ".log.swap")
    memset(&scan, 0, sizeof(Scan))
    scan.fd = file_open(name, False, False, &direct)
    if scan.fd < 0:
        return -scan.fd
    scan.to = file_size(scan.fd)
    scan.gaps = True
    scan.check = True
    scan.offset = base
    scan.until = OFFSETS_END
    err = scan_run(&scan)
    file_close(scan.fd)
    end[0] = scan.offset
    return EBADMSG if not err and (scan.at != scan.to or scan.batches == 0) else err


cdef int finish_one(const char *path, int64_t base) noexcept nogil:
    cdef int64_t old
    cdef int64_t end = 0
    cdef int err = end_of(path, base, &end)
    old = base
    while not err:
        err = next_number(path, ".log", old, &old)
        if err or old < 0 or old >= end:
            break
        err = retire(path, old, old == base)
        old += 1
    return err if err else rename_all(path, base, ".swap", "")


cdef int unlink_strays(const char *path, const char *suffix) noexcept nogil:
    """Removes the indexes of a swap that never counted."""
    cdef char name[PATH_MAX_]
    cdef int64_t base = -1
    cdef int err = 0
    while not err:
        err = next_number(path, suffix, base + 1, &base)
        if err or base < 0:
            break
        path_of(name, path, base, suffix)
        err = file_unlink(name)
    return err


cdef int swap_finish(const char *path) noexcept nogil:
    cdef int64_t base = -1
    cdef int err = 0
    while not err:
        err = next_number(path, ".log.swap", base + 1, &base)
        if err or base < 0:
            break
        err = finish_one(path, base)
    if not err:
        err = unlink_strays(path, ".index.swap")
    if not err:
        err = unlink_strays(path, ".timeindex.swap")
    if not err:
        err = unlink_strays(path, ".txnindex.swap")
    return err


# ---- on the shard

cdef int64_t swap_limit(const LogState *log) noexcept nogil:
    """That a transaction was aborted is known to a compaction from files, which those of segments not yet sealed may not say: all that such
    a transaction wrote waits, or its records would pass for committed ones and hide older records of their keys."""
    cdef int64_t limit = log.segments[0].base_offset
    cdef int64_t decided = log.part.at.last_stable
    cdef int32_t i
    for i in range(log.segments_n):
        if not log.segments[i].sealed and log.segments[i].aborted_least < decided:
            decided = log.segments[i].aborted_least
    for i in range(log.segments_n - 1):
        if not log.segments[i].sealed or log.segments[i + 1].base_offset > decided:
            break
        limit = log.segments[i + 1].base_offset
    return limit


cdef void answer(LogState *log, LogCtl *c, int16_t error, const char *why) noexcept nogil:
    log.controls = c.next
    c.error = error
    c.next = NULL
    if why != NULL:
        snprintf(c.why, sizeof(c.why), "%s", why)
    log_ready(log)
    c.done(c)


cdef int32_t place_of(const LogState *log, int64_t base) noexcept nogil:
    cdef int32_t i
    for i in range(log.segments_n):
        if log.segments[i].base_offset == base:
            return i
    return -1


cdef void swap_run(Job *job) noexcept nogil:
    """j.offset: base; j.data: bases of the old segments. j.least: whether the new segment counts already (a failure is the log's then);
    j.from_: its aborted_least."""
    cdef LogJob *j = <LogJob *> job
    cdef const char *path = j.log.path
    cdef char name[PATH_MAX_]
    cdef const int64_t *bases = <const int64_t *> j.data
    cdef size_t i
    j.least = 0
    path_of(name, path, j.offset, ".log.cleaned")
    j.to = file_size_at(name)
    if j.to < 0:
        j.error = <int> -j.to
        return
    j.error = rename_all(path, j.offset, ".cleaned", ".swap")
    path_of(name, path, j.offset, ".log.swap")
    j.least = file_exists(name)
    for i in range(j.len):
        if not j.error:
            j.error = retire(path, bases[i], i == 0)
    if not j.error:
        j.error = rename_all(path, j.offset, ".swap", "")
    if j.error:
        return
    path_of(name, path, j.offset, ".txnindex")
    j.from_ = 0 if file_exists(name) else OFFSETS_END
    for i in range(j.len):
        path_of(name, path, bases[i], ".log.deleted")
        file_unlink(name)


cdef void replace(LogState *log, int32_t first, int32_t n, Segment *made) noexcept nogil:
    """Puts a segment in the place of n. Log positions of what lies before the next segment move up, to stay without a gap."""
    cdef Segment *old
    cdef int64_t bytes = 0
    cdef int32_t i
    for i in range(first, first + n):
        old = log.segments[i]
        bytes += old.size
        segment_drop(log.store, old)
    log.segments[first] = made
    memmove(log.segments + first + 1, log.segments + first + n, <size_t> (log.segments_n - first - n) * sizeof(Segment *))
    log.segments_n -= n - 1
    for i in range(first, -1, -1):
        log.segments[i].start = log.segments[i + 1].start - log.segments[i].size
    position_set(&log.part.at.bytes, log.part.at.bytes - bytes + made.size)
    forget_positions(log)


cdef void forget_positions(LogState *log) noexcept nogil:
    """Hints that name log positions of before."""
    cdef int32_t i
    r = log.reads
    while r != NULL:
        r.reached = -1
        r = r.next
    log.recent_n = 0
    for i in range(4):
        memset(&log.sequences[i], 0, sizeof(log.sequences[i]))
    log.times_known = False


cdef void swap_done(Job *job) noexcept nogil:
    cdef LogJob *j = <LogJob *> job
    cdef LogState *log = j.log
    cdef LogCtl *c = log.controls
    cdef Segment *made = j.segment
    cdef int32_t first = place_of(log, j.offset)
    cdef int32_t n = <int32_t> j.len
    cdef int32_t i
    log.jobs -= 1
    for i in range(first, first + n):
        log.segments[i].swapping = False
    log.reads_due = True
    log_ready(log)
    if j.error:
        if j.least:                 # the files are neither the old nor the new ones: a start puts that right
            log_fail(log, "putting a compacted segment in place", j.error)
        free(made)
        answer(log, c, KAFKA_STORAGE_ERROR, strerror(j.error))
    else:
        made.size = j.to
        made.aborted_least = j.from_    # or more: that is known when its indexes are loaded
        if made.aborted_least != OFFSETS_END:
            log.aborted_seen = True
        replace(log, first, n, made)
        c.result = j.to
        answer(log, c, 0, NULL)
        segments_remove_due(log)
    free(j.data)
    free(j)


cdef void swap_step(LogState *log, LogCtl *c) noexcept nogil:
    cdef LogJob *j
    cdef int32_t first = place_of(log, c.number)
    cdef int32_t after = place_of(log, c.end)
    cdef int32_t i
    if c.busy:
        return
    if log.part.at.offline or log.closing:
        answer(log, c, UNKNOWN_TOPIC_OR_PARTITION, "the log is offline or closing")
        return
    if first < 0 or after <= first or not log.segments[after - 1].sealed:
        answer(log, c, OFFSET_OUT_OF_RANGE, "the log has changed meanwhile")
        return
    if log.times_busy:
        return                      # its end takes this a step again, as does that of an opening
    for i in range(first, after):
        if log.segments[i].opening:
            return
    j = <LogJob *> calloc(1, sizeof(LogJob))
    if j != NULL:
        j.data = <uint8_t *> malloc(<size_t> (after - first) * sizeof(int64_t))
        j.segment = <Segment *> calloc(1, sizeof(Segment))
    if j == NULL or j.data == NULL or j.segment == NULL:
        if j != NULL:
            free(j.data)
            free(j.segment)
        free(j)
        answer(log, c, KAFKA_STORAGE_ERROR, "out of memory")
        return
    j.len = <size_t> (after - first)
    for i in range(first, after):
        (<int64_t *> j.data)[i - first] = log.segments[i].base_offset
        log.segments[i].swapping = True
    j.segment.log = log
    j.segment.base_offset = c.number
    j.segment.first_timestamp = -1
    j.segment.max_timestamp = TIME_UNKNOWN
    j.segment.checkpoint = -1
    j.segment.fd = -1
    j.segment.rolled = True
    j.segment.sealed = True
    log.store.segment_ids += 1
    j.segment.chunks.id = log.store.segment_ids
    j.job.run = swap_run
    j.job.done = swap_done
    j.log = log
    j.offset = c.number
    c.busy = True
    log.jobs += 1
    work_submit(log.store.config.pool, log.store.config.home, &j.job, WORK_SOON)
