"""Opening a partition's directory. See recovery.pxd."""
from libc.errno cimport EEXIST, EINVAL, EIO, ENOENT, ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strerror, strlen
from fastlog.native.aborted cimport Aborted, aborted_decode, aborted_forget, aborted_free, aborted_least
from fastlog.native.arena cimport BLOCK
from fastlog.native.batch cimport BATCH_HEADER, BatchInfo, PEEK_OK, batch_peek
from fastlog.native.directory cimport (
    Listing, directory_add, directory_check_topic, directory_clean_snapshots, directory_free, directory_has_snapshot, directory_list,
)
from fastlog.native.files cimport (
    PATH_MAX_, dir_make, dir_sync, file_close, file_cut, file_get, file_open, file_put, file_put_at, file_read, file_rename, file_size,
    file_size_at, file_sync, file_trim, file_unlink, path_join, path_of,
)
from fastlog.native.index cimport (
    OFFSET_ENTRY, TIME_ENTRY, Index, index_cut, index_decode, index_encode_offsets, index_encode_times, index_forget, index_free,
    index_init, index_position, index_seal,
)
from fastlog.native.plant cimport PLANT_TRUST_INDEX, planted
from fastlog.native.producers cimport Producer, producers_free, producers_init, producers_load, producers_snapshot, producers_snapshot_bytes
from fastlog.native.recycle cimport recycle_marked
from fastlog.native.relics cimport relic_apply, relic_has
from fastlog.native.scan cimport Scan, scan_run, scan_zeroes
from fastlog.native.segment cimport segment_put_aborted
from fastlog.native.store cimport INDEX_ENTRIES_MAX
from fastlog.native.swap cimport swap_finish

cdef extern from *:
    """
    #include <stdlib.h>
    static void *fl_aligned(size_t n) { void *p; return posix_memalign(&p, 4096, n) ? 0 : p; }
    """
    void *fl_aligned(size_t n) nogil

cdef enum:
    STORAGE = 56                    # KAFKA_STORAGE_ERROR
    SNAPSHOT_MAX = 1073741824       # bytes of a file of ours that is read whole

cdef int64_t OFFSETS_END = 0x7FFFFFFFFFFFFFFF


cdef int failed(Recovery *r, const char *what, int err) noexcept nogil:
    r.error = STORAGE
    snprintf(r.why, sizeof(r.why), "%s: %s", what, strerror(err))
    return -1


cdef int open_segment(Recovery *r, const char *path, bint create, int *fd, bint *direct, int64_t *size) noexcept nogil:
    fd[0] = file_open(path, True, create, direct)
    if fd[0] < 0:
        return failed(r, "cannot open a segment", -fd[0])
    size[0] = file_size(fd[0])
    if size[0] < 0:
        file_close(fd[0])
        return failed(r, "cannot open a segment", <int> -size[0])
    return 0


cdef int load_aborted(Recovery *r, Aborted *out, int64_t base) noexcept nogil:
    """The aborted transactions of a segment: none without a file of them. An errno, or -1: not a valid one."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *data = NULL
    cdef size_t n = 0
    cdef int err
    path_of(path, r.path, base, ".txnindex")
    err = file_get(path, SNAPSHOT_MAX, &data, &n)
    if err == 0:
        err = aborted_decode(out, data, n, base)
    free(data)
    return 0 if err == ENOENT else err


cdef int load_index(Recovery *r, Index *ix, int64_t base, int64_t size) noexcept nogil:
    """The index files of a segment; -1 when missing or wrong (the index is then empty)."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *offsets = NULL
    cdef uint8_t *times = NULL
    cdef size_t offsets_n = 0
    cdef size_t times_n = 0
    cdef int bad
    path_of(path, r.path, base, ".index")
    bad = file_get(path, SNAPSHOT_MAX, &offsets, &offsets_n)
    path_of(path, r.path, base, ".timeindex")
    if not bad:
        bad = file_get(path, SNAPSHOT_MAX, &times, &times_n)
    if not bad:
        bad = index_decode(ix, offsets, offsets_n, times, times_n, size, base + (<int64_t> 1 << 31))
    if not bad:
        bad = load_aborted(r, &ix.aborted, base)
    free(offsets)
    free(times)
    if bad:
        index_free(ix)
        return -1
    return 0


cdef int write_index(Recovery *r, Index *ix) noexcept nogil:
    """All entries of an index, in place of what its files hold."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *data = <uint8_t *> malloc(<size_t> (ix.offsets_n + ix.times_n) * TIME_ENTRY + 1)
    cdef size_t n
    cdef int err
    if data == NULL:
        return ENOMEM
    ix.offsets_kept = 0
    ix.times_kept = 0
    ix.aborted.kept = 0
    err = segment_put_aborted(r.path, ix)
    if err:
        free(data)
        return err
    n = <size_t> index_encode_times(ix, data) * TIME_ENTRY
    path_of(path, r.path, ix.base_offset, ".timeindex")
    err = file_put_at(path, data, n, 0)
    if not err:
        n = <size_t> index_encode_offsets(ix, data) * OFFSET_ENTRY
        path_of(path, r.path, ix.base_offset, ".index")
        err = file_put_at(path, data, n, 0)
    free(data)
    return err


cdef int write_snapshot(Recovery *r, int64_t offset) noexcept nogil:
    cdef char name[64]
    cdef size_t n = producers_snapshot_bytes(&r.producers)
    cdef uint8_t *data = <uint8_t *> malloc(n)
    cdef int err
    if data == NULL:
        return ENOMEM
    producers_snapshot(&r.producers, data)
    snprintf(name, 64, "%020lld.snapshot", <long long> offset)
    err = file_put(r.path, name, data, n)
    free(data)
    return err


cdef void scan_set(Scan *s, Recovery *r, int fd, int64_t size, Index *ix, int64_t offset) noexcept nogil:
    memset(s, 0, sizeof(Scan))
    s.fd = fd
    s.to = size
    s.interval = r.settings.index_interval_bytes
    s.index = ix
    s.offset = offset
    s.until = OFFSETS_END
    s.leader_epoch = r.leader_epoch


cdef int walk_tail(Recovery *r, int fd, int64_t size, Index *ix, Scan *s) noexcept nogil:
    """Walks headers from the last index entry of a whole segment to its end. 0 when it ends exactly there, 1 when not, -1 on failure."""
    scan_set(s, r, fd, size, ix, ix.base_offset)
    s.gaps = True
    s.at = ix.last_position
    return walk_on(r, size, s)


cdef int walk_on(Recovery *r, int64_t size, Scan *s) noexcept nogil:
    cdef int err
    err = scan_run(s)
    if err:
        return failed(r, "cannot read a segment", err)
    return 0 if s.at == size else 1


cdef int read_first_timestamp(Recovery *r, int fd) noexcept nogil:
    cdef uint8_t *buf = <uint8_t *> fl_aligned(BLOCK)
    cdef BatchInfo info
    cdef int64_t n
    if buf == NULL:
        return failed(r, "cannot read a segment", ENOMEM)
    n = file_read(fd, buf, BLOCK, 0)
    if n >= BATCH_HEADER and batch_peek(buf, BATCH_HEADER, &info) == PEEK_OK:
        r.first_timestamp = info.max_timestamp
    free(buf)
    return failed(r, "cannot read a segment", <int> -n) if n < 0 else 0


cdef int load_producers(Recovery *r, Listing *l, int64_t end, int64_t *from_) noexcept nogil:
    """The newest valid snapshot at or before offset `end`: *from_ is where it stands, or the log's start without one."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *data
    cdef size_t n = 0
    cdef int32_t i = l.snapshots.n - 1
    from_[0] = l.logs.at[0]
    while i >= 0:
        if l.snapshots.at[i] <= end:
            path_of(path, r.path, l.snapshots.at[i], ".snapshot")
            data = NULL
            if file_get(path, SNAPSHOT_MAX, &data, &n) == 0 and producers_load(&r.producers, data, n) == 0:
                free(data)
                from_[0] = l.snapshots.at[i]
                r.snapshot_offset = from_[0]
                return 0
            free(data)
            file_unlink(path)
        i -= 1
    producers_free(&r.producers)
    return 0


cdef int replay_producers(Recovery *r, Listing *l, int64_t from_, int64_t end) noexcept nogil:
    """Brings producer state from offset `from_` to `end` by the headers of the segments between, which are whole."""
    cdef char path[PATH_MAX_]
    cdef Scan s
    cdef bint direct
    cdef int64_t size
    cdef int32_t i
    cdef int fd
    cdef int err
    for i in range(l.logs.n):
        if l.logs.at[i] >= end or (i + 1 < l.logs.n and l.logs.at[i + 1] <= from_):
            continue
        path_of(path, r.path, l.logs.at[i], ".log")
        if open_segment(r, path, False, &fd, &direct, &size) < 0:
            return -1
        scan_set(&s, r, fd, size, NULL, l.logs.at[i])
        s.gaps = True
        s.producers = &r.producers
        s.producers_from = from_
        err = scan_run(&s)
        file_close(fd)
        if err:
            return failed(r, "cannot read a segment", err)
    return 0


cdef int load_before(Recovery *r, Listing *l, int64_t offset) noexcept nogil:
    """Producer state at a segment's start, from the newest snapshot and the headers since."""
    cdef int64_t from_
    load_producers(r, l, offset, &from_)
    return replay_producers(r, l, from_, offset) if from_ < offset else 0


cdef int open_clean(Recovery *r, Listing *l) noexcept nogil:
    """Believes sizes. 1 when they can't be, -1 on failure."""
    cdef char path[PATH_MAX_]
    cdef Scan s
    cdef int64_t base = l.logs.at[l.logs.n - 1]
    cdef int64_t size
    cdef int how
    path_of(path, r.path, base, ".log")
    if open_segment(r, path, False, &r.fd, &r.direct, &size) < 0:
        return -1
    index_init(r.index, base)
    if load_index(r, r.index, base, size) == 0:
        r.index.offsets_kept = r.index.offsets_n
        r.index.times_kept = r.index.times_n
        r.index.aborted.kept = r.index.aborted.n
        how = walk_tail(r, r.fd, size, r.index, &s)
        if how == 0:
            how = load_before(r, l, s.offset)
    else:                           # made anew, aborted transactions too: so producer state is followed from the segment's start on
        how = load_before(r, l, base)
        if how == 0:
            scan_set(&s, r, r.fd, size, r.index, base)
            s.gaps = True
            s.producers = &r.producers
            s.producers_from = base
            how = walk_on(r, size, &s)
        if how == 0:
            how = read_first_timestamp(r, r.fd)
    if how:
        file_close(r.fd)
        r.fd = -1
        index_free(r.index)
        producers_free(&r.producers)
        return how
    r.next_offset = s.offset
    r.leader_epoch = s.leader_epoch
    r.checked = size if r.index.offsets_kept == r.index.offsets_n else 0
    r.segments[l.logs.n - 1].size = size
    return 0


cdef int sealed(Recovery *r, const Listing *l, int64_t base, int64_t next_base) noexcept nogil:
    """Whether a segment before the last one was sealed: the snapshot of its end, written last, is there, its indexes are valid, and it
    ends where the next one begins. -1 on failure.
    """
    cdef char path[PATH_MAX_]
    cdef Index ix
    cdef Scan s
    cdef bint direct
    cdef int64_t size
    cdef int fd
    cdef int how = 1
    if not directory_has_snapshot(l, next_base):
        return 0
    path_of(path, r.path, base, ".log")
    if open_segment(r, path, False, &fd, &direct, &size) < 0:
        return -1
    index_init(&ix, base)
    if load_index(r, &ix, base, size) == 0:
        how = walk_tail(r, fd, size, &ix, &s)
        if how == 0 and s.offset > next_base:
            how = 1
    index_free(&ix)
    file_close(fd)
    return how if how < 0 else how == 0


cdef int compacted(Recovery *r, Listing *l, int fd, int64_t size, int64_t base, int64_t next_base, Scan *s) noexcept nogil:
    """Takes a segment that skips offsets, if it is one that compaction made: whole to its last byte, and up to where the next one begins.
    1 when it was taken, -1 on failure.
    """
    cdef Index ix
    cdef Scan whole
    cdef int err
    index_init(&ix, base)
    scan_set(&whole, r, fd, size, &ix, base)
    whole.check = True
    whole.gaps = True
    err = scan_run(&whole)
    if err or whole.at != size or whole.offset != next_base:
        index_free(&ix)
        return failed(r, "cannot read a segment", err) if err else 0
    index_free(r.index)
    r.index[0] = ix
    s[0] = whole
    s.index = r.index
    s.why = NULL
    return 1 if load_before(r, l, next_base) == 0 else -1


cdef int scan_segment(Recovery *r, Listing *l, const char *path, int fd, int64_t size, int64_t base, int64_t next_base,
                      Scan *s) noexcept nogil:
    """Takes what continues the log, from the file and then from dead arenas."""
    cdef int64_t end
    cdef int64_t at
    cdef int err
    cdef int i
    s.check = True
    err = scan_run(s)
    if err:
        return failed(r, "cannot read a segment", err)
    if s.gap and next_base >= 0:
        i = compacted(r, l, fd, size, base, next_base, s)
        if i:
            return -1 if i < 0 else 0
    if r.relics == NULL:
        return 0
    for i in range(r.relics.n):
        at = s.at
        err = relic_apply(r.relics, i, r.topic_id, r.partition, base, at, path, &end)
        if err:
            return failed(r, "cannot write what the arena holds", err)
        if end == at:
            continue
        s.to = size if size > end else end
        err = scan_run_on(s)
        if err:
            return failed(r, "cannot read a segment", err)
        r.arena_bytes += s.at - at
    return 0


cdef int scan_run_on(Scan *s) noexcept nogil:
    """Goes on with a scan, keeping what it found at the file's start."""
    cdef int64_t first = s.first_timestamp
    cdef bint begun = s.at > 0
    cdef int err = scan_run(s)
    if begun:
        s.first_timestamp = first
    return err


cdef int next_continues(Recovery *r, const char *path, int64_t offset) noexcept nogil:
    """Whether the provisional next segment begins with the batch at `offset`, or a dead arena says so. -1 on failure."""
    cdef uint8_t *buf
    cdef BatchInfo info
    cdef bint direct
    cdef int64_t n
    cdef int fd
    cdef int i
    if r.relics != NULL:
        for i in range(r.relics.n):
            if relic_has(r.relics, i, r.topic_id, r.partition, offset, 0):
                return 1
    fd = file_open(path, False, False, &direct)
    if fd < 0:
        return failed(r, "cannot open the next segment", -fd)
    buf = <uint8_t *> fl_aligned(BLOCK)
    n = file_read(fd, buf, BLOCK, 0) if buf != NULL else -ENOMEM
    file_close(fd)
    i = n >= BATCH_HEADER and batch_peek(buf, BATCH_HEADER, &info) == PEEK_OK and info.base_offset == offset
    free(buf)
    return failed(r, "cannot read the next segment", <int> -n) if n < 0 else i


cdef int count_lost(Recovery *r, const char *path, int64_t from_) noexcept nogil:
    """Adds the bytes of a file from a position on, up to the last one that is not zero. What a recycled file holds there can't be told from
    what it held before, and counts for nothing.
    """
    cdef bint direct
    cdef int64_t last
    cdef int64_t size
    cdef int err
    cdef int fd = file_open(path, False, False, &direct)
    if fd < 0:
        return failed(r, "cannot open a segment", -fd)
    size = file_size(fd)
    if size > from_ and recycle_marked(fd, size):
        size = from_
    err = scan_zeroes(fd, from_, size, &last) if size > from_ else 0
    file_close(fd)
    if err:
        return failed(r, "cannot read a segment", err)
    if size > from_:
        r.lost_bytes += last - from_
    return 0


cdef int remove_segment(Recovery *r, int64_t base) noexcept nogil:
    cdef char path[PATH_MAX_]
    path_of(path, r.path, base, ".log")
    if count_lost(r, path, 0) < 0:
        return -1
    file_unlink(path)
    path_of(path, r.path, base, ".index")
    file_unlink(path)
    path_of(path, r.path, base, ".timeindex")
    file_unlink(path)
    path_of(path, r.path, base, ".txnindex")
    file_unlink(path)
    return 0


cdef int close_scanned(Recovery *r, const char *path, int fd, int64_t size, Scan *s, bint last) noexcept nogil:
    """Cuts a scanned segment at its end, durably; one that is not the last gets its indexes."""
    cdef char other[PATH_MAX_]
    cdef bint cut = file_size(fd) != s.at
    cdef int err = 0
    if count_lost(r, path, s.at) < 0:
        return -1
    if s.index.aborted.n == 0:      # what there is of them is not of these batches
        path_of(other, r.path, s.index.base_offset, ".txnindex")
        file_unlink(other)
    if cut:
        err = file_cut(fd, s.at) if r.together and last else file_trim(fd, s.at)
    elif not (r.together and last):
        err = file_sync(fd)
    if err:
        return failed(r, "cannot cut a segment" if cut else "cannot flush a segment", err)
    if not last:
        index_seal(s.index)
        err = write_index(r, s.index)
        if not err:
            err = write_snapshot(r, s.offset)
        if err:
            return failed(r, "cannot write an index", err)
    return 0


cdef int checkpoint(Recovery *r, Listing *l, int fd, int64_t size, int64_t base, int64_t limit, Scan *s) noexcept nogil:
    """Has the scan of a segment start at the newest checkpoint inside it, if its index leads exactly there. -1 on failure."""
    cdef char path[PATH_MAX_]
    cdef uint8_t *data
    cdef size_t n = 0
    cdef int32_t i = l.snapshots.n - 1
    cdef int64_t at
    cdef int err
    cdef bint good
    while i >= 0 and l.snapshots.at[i] > base:
        at = l.snapshots.at[i]
        i -= 1
        if at > limit:
            continue
        data = NULL
        path_of(path, r.path, at, ".snapshot")
        good = file_get(path, SNAPSHOT_MAX, &data, &n) == 0 and producers_load(&r.producers, data, n) == 0
        free(data)
        if not good:
            continue
        if load_index(r, r.index, base, size):
            break                   # without it, its aborted transactions are not known
        index_cut(r.index, at)
        scan_set(s, r, fd, size, r.index, base)
        s.gaps = True
        s.until = at
        s.at = r.index.last_position
        err = scan_run(s)
        if err:
            return failed(r, "cannot read a segment", err)
        if s.offset == at and s.why == NULL:
            r.snapshot_offset = at
            s.gaps = False
            s.until = OFFSETS_END
            s.producers = &r.producers
            s.producers_from = at
            return read_first_timestamp(r, fd)
        index_free(r.index)
        break                       # one that leads nowhere: all of the segment is checked
    scan_set(s, r, fd, size, r.index, base)
    return 0


cdef bint snapshot_valid(const Recovery *r, int64_t offset) noexcept nogil:
    cdef char path[PATH_MAX_]
    cdef Producers found
    cdef uint8_t *data = NULL
    cdef size_t n = 0
    cdef bint valid
    producers_init(&found)
    path_of(path, r.path, offset, ".snapshot")
    valid = file_get(path, SNAPSHOT_MAX, &data, &n) == 0 and producers_load(&found, data, n) == 0
    free(data)
    producers_free(&found)
    return valid


cdef int check_durable(Recovery *r, const Listing *l, int64_t offset, const char *why) noexcept nogil:
    """Fails where the log would end before a producer snapshot. One is written when all before it is durable: no crash takes that away, so
    a segment was removed, or is damaged, and what comes after it must not be cut.
    """
    cdef int32_t i = l.snapshots.n - 1
    while i >= 0 and l.snapshots.at[i] > offset and not snapshot_valid(r, l.snapshots.at[i]):
        i -= 1
    if i < 0 or l.snapshots.at[i] <= offset:
        return 0
    if why == NULL:
        why = "no segment goes on there"
    r.error = STORAGE
    snprintf(r.why, sizeof(r.why), "the log breaks off at offset %lld (%s), but was stored durably up to %lld: a segment is missing or "
             "damaged. Nothing was changed; restore the files, or see `fastlog log repair`", <long long> offset, why,
             <long long> l.snapshots.at[i])
    return -1


cdef int open_unclean(Recovery *r, Listing *l) noexcept nogil:
    """Searches for the end of the log. See the head of recovery.pxd."""
    cdef char path[PATH_MAX_]
    cdef char next_path[PATH_MAX_]
    cdef Scan s
    cdef int64_t offset
    cdef int64_t size
    cdef int32_t first = l.logs.n - 1
    cdef int32_t i
    cdef int32_t k
    cdef bint begun
    cdef bint direct
    cdef const char *why = NULL
    cdef int fd
    cdef int how
    r.recovered = True
    path_join(next_path, r.path, "next.segment")
    while first > 0:
        how = sealed(r, l, l.logs.at[first - 1], l.logs.at[first])
        if how < 0:
            return -1
        if how:
            break
        first -= 1
    for k in range(first):
        path_of(path, r.path, l.logs.at[k], ".log")
        r.segments[k].size = file_size_at(path)
    offset = l.logs.at[first]
    i = first
    while True:
        path_of(path, r.path, l.logs.at[i], ".log")
        if open_segment(r, path, False, &fd, &direct, &size) < 0:
            return -1
        index_init(r.index, l.logs.at[i])
        scan_set(&s, r, fd, size, r.index, offset)
        s.producers = &r.producers
        s.producers_from = offset
        how = 0
        if i == first:
            how = checkpoint(r, l, fd, size, offset, l.logs.at[i + 1] if i + 1 < l.logs.n else OFFSETS_END, &s)
            if how == 0 and s.producers == NULL:
                how = load_before(r, l, offset)
                s.producers = &r.producers
                s.producers_from = offset
                if planted & PLANT_TRUST_INDEX and load_index(r, r.index, offset, size) == 0:
                    s.at = r.index.last_position
                    s.gaps = True
        begun = s.at > 0
        r.checked = s.at
        if how == 0:
            how = scan_segment(r, l, path, fd, size, l.logs.at[i], l.logs.at[i + 1] if i + 1 < l.logs.n else -1, &s)
        if how == 0:
            offset = s.offset
            why = s.why
            r.leader_epoch = s.leader_epoch
            if not begun:
                r.first_timestamp = s.first_timestamp
            r.segments[i].size = s.at
            if i + 1 == l.logs.n and l.next_segment:
                how = next_continues(r, next_path, offset)
                if how > 0:
                    path_of(path, r.path, offset, ".log")
                    how = file_rename(next_path, path)
                    if how:
                        how = failed(r, "cannot name the next segment", how)
                    l.next_segment = False
                    if how == 0 and directory_add(l, offset):
                        how = failed(r, "cannot name the next segment", ENOMEM)
                    r.segments[i + 1].base_offset = offset
                    path_of(path, r.path, l.logs.at[i], ".log")
        k = how == 0 and i + 1 < l.logs.n and l.logs.at[i + 1] == offset and s.at > 0
        if how == 0 and not k:
            how = check_durable(r, l, offset, s.why)
        if how == 0:
            how = close_scanned(r, path, fd, size, &s, not k)
        if how < 0:
            file_close(fd)
            return -1
        if not k:
            break
        file_close(fd)
        index_free(r.index)
        i += 1
    r.fd = fd
    r.direct = direct
    r.next_offset = offset
    k = i + 1
    while k < l.logs.n:
        if remove_segment(r, l.logs.at[k]) < 0:
            return -1
        k += 1
    l.logs.n = i + 1
    r.segments_n = i + 1
    if l.next_segment:
        if count_lost(r, next_path, 0) < 0:
            return -1
        file_unlink(next_path)
    how = 0 if r.together else dir_sync(r.path)
    if how:
        return failed(r, "cannot flush the directory", how)
    if r.lost_bytes:
        if why == NULL:
            why = "the segment ends"
        snprintf(r.why, sizeof(r.why), "cut at offset %lld: %s; %lld bytes past it were no part of the log", <long long> offset, why,
                 <long long> r.lost_bytes)
    return 0


cdef int keep_index(Recovery *r) noexcept nogil:
    """Leaves a long index of the active segment to its files."""
    cdef Index *ix = r.index
    cdef int err = 0
    if ix.offsets_n <= INDEX_ENTRIES_MAX and ix.times_n <= INDEX_ENTRIES_MAX and ix.aborted.n <= INDEX_ENTRIES_MAX:
        return 0
    if ix.offsets_kept != ix.offsets_n or ix.times_kept != ix.times_n or ix.aborted.kept != ix.aborted.n:
        err = write_index(r, ix)
    if not err:
        index_forget(ix, ix.offsets_n, ix.times_n)
        aborted_forget(&ix.aborted, ix.aborted.n)
    return err


cdef void note_aborted(Recovery *r) noexcept nogil:
    """What the segments before the last one have of aborted transactions."""
    cdef Aborted aborted
    cdef char path[PATH_MAX_]
    cdef int32_t i
    memset(&aborted, 0, sizeof(Aborted))
    for i in range(r.segments_n - 1):
        path_of(path, r.path, r.segments[i].base_offset, ".index")
        if file_size_at(path) < 0 or load_aborted(r, &aborted, r.segments[i].base_offset):
            r.segments[i].aborted_least = 0     # not known: all indexes of it are made anew when someone asks for them
            continue
        r.segments[i].aborted_least = aborted_least(&aborted)
        aborted_free(&aborted)


cdef int place_txn(Recovery *r, Producer *e) noexcept nogil:
    """Finds where the transaction that a producer has under way begins, or what is left of it."""
    cdef char path[PATH_MAX_]
    cdef int32_t last = r.segments_n - 1
    cdef int32_t i = 0
    cdef int64_t before = 0
    cdef int64_t size
    cdef bint direct
    cdef Scan s
    cdef int fd
    cdef int err
    while i < last and r.segments[i + 1].base_offset <= e.txn_first_offset:
        before += r.segments[i].size
        i += 1
    e.txn_position = before
    if r.segments[i].base_offset >= e.txn_first_offset:
        return 0
    path_of(path, r.path, r.segments[i].base_offset, ".log")
    if open_segment(r, path, False, &fd, &direct, &size) < 0:
        return -1
    scan_set(&s, r, fd, r.segments[i].size, NULL, r.segments[i].base_offset)
    s.gaps = True
    s.until = e.txn_first_offset
    if i == last:
        s.at = index_position(r.index, e.txn_first_offset - 1)     # an entry names the last offset of the batch at its position
    err = scan_run(&s)
    file_close(fd)
    if err:
        return failed(r, "cannot read a segment", err)
    e.txn_position = before + s.at
    return 0


cdef int place_txns(Recovery *r) noexcept nogil:
    cdef Producer *e = r.producers.txn_first
    while e != NULL:
        if place_txn(r, e) < 0:
            return -1
        e = e.txn_next
    return 0


cdef int read_partial(Recovery *r) noexcept nogil:
    """The bytes of the last block, if it is partly filled."""
    cdef int64_t size = r.segments[r.segments_n - 1].size
    cdef int64_t at = size & ~(<int64_t> BLOCK - 1)
    cdef uint8_t *buf
    cdef int64_t n
    if at == size:
        return 0
    buf = <uint8_t *> fl_aligned(BLOCK)
    r.partial = <uint8_t *> malloc(<size_t> (size - at))
    if buf == NULL or r.partial == NULL:
        free(buf)
        return failed(r, "cannot read a segment", ENOMEM)
    n = file_read(r.fd, buf, BLOCK, at)
    if n >= size - at:
        memcpy(r.partial, buf, <size_t> (size - at))
    free(buf)
    return failed(r, "cannot read a segment", <int> -n if n < 0 else EIO) if n < size - at else 0


cdef int make_first(Recovery *r, Listing *l) noexcept nogil:
    """The segment of an empty log."""
    cdef char path[PATH_MAX_]
    cdef int64_t size
    cdef int err
    path_of(path, r.path, 0, ".log")
    if open_segment(r, path, True, &r.fd, &r.direct, &size) < 0:
        return -1
    err = file_sync(r.fd)
    if not err:
        err = dir_sync(r.path)
    if err:
        return failed(r, "cannot make a segment", err)
    if directory_add(l, 0):
        return failed(r, "cannot make a segment", ENOMEM)
    return 0


cdef int run(Recovery *r, Listing *l) noexcept nogil:
    cdef char path[PATH_MAX_]
    cdef int32_t i
    cdef int how
    if strlen(r.path) > PATH_MAX_ - 64:
        return failed(r, "the path is too long", EINVAL)
    if r.create:
        how = dir_make(r.path)
        if how == EEXIST:
            r.error = STORAGE
            snprintf(r.why, sizeof(r.why), "the directory exists already")
            return -1
        if how:
            return failed(r, "cannot make the directory", how)
    r.error = directory_list(r.path, l, r.why)
    if not r.error and l.swaps:
        how = swap_finish(r.path)
        if how:
            return failed(r, "cannot finish a compaction", how)
        directory_free(l)
        memset(l, 0, sizeof(Listing))
        r.error = directory_list(r.path, l, r.why)
    if not r.error:
        r.error = directory_check_topic(r.path, r.topic_id, r.why)
    if r.error:
        return -1
    if l.logs.n == 0 and l.next_segment:        # the first segment was never named otherwise: nothing was appended
        path_join(path, r.path, "next.segment")
        file_unlink(path)
        l.next_segment = False
    r.segments = <Found *> malloc(<size_t> (l.logs.n + 2) * sizeof(Found))
    r.index = <Index *> malloc(sizeof(Index))
    if r.segments == NULL or r.index == NULL:
        return failed(r, "cannot open", ENOMEM)
    index_init(r.index, 0)
    if l.logs.n == 0:
        r.segments[0].base_offset = 0
        r.segments[0].size = 0
        r.segments_n = 1
        return make_first(r, l)
    for i in range(l.logs.n):
        r.segments[i].base_offset = l.logs.at[i]
        path_of(path, r.path, l.logs.at[i], ".log")
        r.segments[i].size = file_size_at(path)
        if r.segments[i].size < 0:
            return failed(r, "cannot open a segment", <int> -r.segments[i].size)
    r.segments_n = l.logs.n
    how = 1
    if r.clean and not l.next_segment:
        how = open_clean(r, l)
    if how == 1:
        how = open_unclean(r, l)
    if how < 0:
        return -1
    note_aborted(r)
    if place_txns(r) < 0:
        return -1
    directory_clean_snapshots(r.path, l, r.next_offset)
    how = keep_index(r)
    if how:
        return failed(r, "cannot write an index", how)
    return read_partial(r)


cdef void recovery_run(Recovery *r) noexcept nogil:
    cdef Listing l
    memset(&l, 0, sizeof(Listing))
    r.error = 0
    r.why[0] = 0
    r.recovered = False
    r.lost_bytes = 0
    r.arena_bytes = 0
    r.segments = NULL
    r.segments_n = 0
    r.next_offset = 0
    r.leader_epoch = -1
    r.first_timestamp = -1
    r.snapshot_offset = -1
    r.checked = 0
    r.index = NULL
    r.partial = NULL
    r.fd = -1
    producers_init(&r.producers)
    if run(r, &l) < 0 and r.error == 0:
        r.error = STORAGE
    directory_free(&l)
    if r.error:
        recovery_free(r)


cdef void recovery_free(Recovery *r) noexcept nogil:
    if r.index != NULL:
        index_free(r.index)
        free(r.index)
        r.index = NULL
    free(r.segments)
    r.segments = NULL
    free(r.partial)
    r.partial = NULL
    producers_free(&r.producers)
    file_close(r.fd)
    r.fd = -1
