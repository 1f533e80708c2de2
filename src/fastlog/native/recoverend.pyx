"""The search for a log's end. See recoverend.pxd."""
from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from fastlog.native.arena cimport BLOCK
from fastlog.native.batch cimport BATCH_HEADER, BatchInfo, PEEK_OK, batch_peek
from fastlog.native.directory cimport Listing, directory_add, directory_has_snapshot
from fastlog.native.files cimport (
    PATH_MAX_, SNAPSHOT_MAX, dir_sync, file_close, file_cut, file_get, file_memory, file_open, file_read, file_rename, file_size,
    file_size_at, file_sync, file_trim, file_unlink, files_drop_indexes, path_join, path_of,
)
from fastlog.native.index cimport Index, index_cut, index_free, index_init, index_seal
from fastlog.native.plant cimport PLANT_TRUST_INDEX, planted
from fastlog.native.producers cimport producers_load
from fastlog.native.recoverfiles cimport (
    recover_failed, recover_first_timestamp, recover_load_index, recover_open, recover_scan, recover_walk_tail, recover_write_index,
    recover_write_snapshot,
)
from fastlog.native.recoverstate cimport recover_check_durable, recover_producers
from fastlog.native.recovery cimport Recovery
from fastlog.native.recycle cimport recycle_marked
from fastlog.native.relics cimport relic_apply, relic_has
from fastlog.native.scan cimport Scan, scan_run, scan_zeroes

cdef int64_t OFFSETS_END = 0x7FFFFFFFFFFFFFFF


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
    if recover_open(r, path, False, &fd, &direct, &size) < 0:
        return -1
    index_init(&ix, base)
    if recover_load_index(r, &ix, base, size) == 0:
        how = recover_walk_tail(r, fd, size, &ix, &s)
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
    recover_scan(&whole, r, fd, size, &ix, base)
    whole.check = True
    whole.gaps = True
    err = scan_run(&whole)
    if err or whole.at != size or whole.offset != next_base:
        index_free(&ix)
        return recover_failed(r, "cannot read a segment", err) if err else 0
    index_free(r.index)
    r.index[0] = ix
    s[0] = whole
    s.index = r.index
    s.why = NULL
    return 1 if recover_producers(r, l, next_base) == 0 else -1


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
        return recover_failed(r, "cannot read a segment", err)
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
            return recover_failed(r, "cannot write what the arena holds", err)
        if end == at:
            continue
        s.to = size if size > end else end
        err = scan_run_on(s)
        if err:
            return recover_failed(r, "cannot read a segment", err)
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
        return recover_failed(r, "cannot open the next segment", -fd)
    buf = <uint8_t *> file_memory(BLOCK)
    n = file_read(fd, buf, BLOCK, 0) if buf != NULL else -ENOMEM
    file_close(fd)
    i = n >= BATCH_HEADER and batch_peek(buf, BATCH_HEADER, &info) == PEEK_OK and info.base_offset == offset
    free(buf)
    return recover_failed(r, "cannot read the next segment", <int> -n) if n < 0 else i


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
        return recover_failed(r, "cannot open a segment", -fd)
    size = file_size(fd)
    if size > from_ and recycle_marked(fd, size):
        size = from_
    err = scan_zeroes(fd, from_, size, &last) if size > from_ else 0
    file_close(fd)
    if err:
        return recover_failed(r, "cannot read a segment", err)
    if size > from_:
        r.lost_bytes += last - from_
    return 0


cdef int remove_segment(Recovery *r, int64_t base) noexcept nogil:
    cdef char path[PATH_MAX_]
    path_of(path, r.path, base, ".log")
    if count_lost(r, path, 0) < 0:
        return -1
    file_unlink(path)
    files_drop_indexes(r.path, base, "")
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
        return recover_failed(r, "cannot cut a segment" if cut else "cannot flush a segment", err)
    if not last:
        index_seal(s.index)
        err = recover_write_index(r, s.index)
        if not err:
            err = recover_write_snapshot(r, s.offset)
        if err:
            return recover_failed(r, "cannot write an index", err)
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
        if recover_load_index(r, r.index, base, size):
            break                   # without it, its aborted transactions are not known
        index_cut(r.index, at)
        recover_scan(s, r, fd, size, r.index, base)
        s.gaps = True
        s.until = at
        s.at = r.index.last_position
        err = scan_run(s)
        if err:
            return recover_failed(r, "cannot read a segment", err)
        if s.offset == at and s.why == NULL:
            r.snapshot_offset = at
            s.gaps = False
            s.until = OFFSETS_END
            s.producers = &r.producers
            s.producers_from = at
            return recover_first_timestamp(r, fd)
        index_free(r.index)
        break                       # one that leads nowhere: all of the segment is checked
    recover_scan(s, r, fd, size, r.index, base)
    return 0


cdef int recover_end(Recovery *r, Listing *l) noexcept nogil:
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
        if recover_open(r, path, False, &fd, &direct, &size) < 0:
            return -1
        index_init(r.index, l.logs.at[i])
        recover_scan(&s, r, fd, size, r.index, offset)
        s.producers = &r.producers
        s.producers_from = offset
        how = 0
        if i == first:
            how = checkpoint(r, l, fd, size, offset, l.logs.at[i + 1] if i + 1 < l.logs.n else OFFSETS_END, &s)
            if how == 0 and s.producers == NULL:
                how = recover_producers(r, l, offset)
                s.producers = &r.producers
                s.producers_from = offset
                if planted & PLANT_TRUST_INDEX and recover_load_index(r, r.index, offset, size) == 0:
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
                        how = recover_failed(r, "cannot name the next segment", how)
                    l.next_segment = False
                    if how == 0 and directory_add(l, offset):
                        how = recover_failed(r, "cannot name the next segment", ENOMEM)
                    r.segments[i + 1].base_offset = offset
                    path_of(path, r.path, l.logs.at[i], ".log")
        k = how == 0 and i + 1 < l.logs.n and l.logs.at[i + 1] == offset and s.at > 0
        if how == 0 and not k:
            how = recover_check_durable(r, l, offset, s.why)
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
        return recover_failed(r, "cannot flush the directory", how)
    if r.lost_bytes:
        if why == NULL:
            why = "the segment ends"
        snprintf(r.why, sizeof(r.why), "cut at offset %lld: %s; %lld bytes past it were no part of the log", <long long> offset, why,
                 <long long> r.lost_bytes)
    return 0
