"""Opening a partition's directory. See recovery.pxd."""
from libc.errno cimport EEXIST, EINVAL, ENOMEM
from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memset, strlen
from fastlog.native.directory cimport (
    Listing, directory_add, directory_check_topic, directory_clean_snapshots, directory_free, directory_list,
)
from fastlog.native.files cimport PATH_MAX_, dir_make, dir_sync, file_close, file_size_at, file_sync, file_unlink, path_join, path_of
from fastlog.native.index cimport Index, index_free, index_init
from fastlog.native.producers cimport producers_free, producers_init
from fastlog.native.recoverend cimport recover_end
from fastlog.native.recoverfiles cimport (
    recover_failed, recover_first_timestamp, recover_keep_index, recover_load_index, recover_note_aborted, recover_open, recover_partial,
    recover_scan, recover_walk_on, recover_walk_tail,
)
from fastlog.native.recoverstate cimport recover_place_txns, recover_producers
from fastlog.native.scan cimport Scan
from fastlog.native.swap cimport swap_finish

cdef enum:
    STORAGE = 56                    # KAFKA_STORAGE_ERROR


cdef int open_clean(Recovery *r, Listing *l) noexcept nogil:
    """Believes sizes. 1 when they can't be, -1 on failure."""
    cdef char path[PATH_MAX_]
    cdef Scan s
    cdef int64_t base = l.logs.at[l.logs.n - 1]
    cdef int64_t size
    cdef int how
    path_of(path, r.path, base, ".log")
    if recover_open(r, path, False, &r.fd, &r.direct, &size) < 0:
        return -1
    index_init(r.index, base)
    if recover_load_index(r, r.index, base, size) == 0:
        r.index.offsets_kept = r.index.offsets_n
        r.index.times_kept = r.index.times_n
        r.index.aborted.kept = r.index.aborted.n
        how = recover_walk_tail(r, r.fd, size, r.index, &s)
        if how == 0:
            how = recover_producers(r, l, s.offset)
    else:                           # made anew, aborted transactions too: so producer state is followed from the segment's start on
        how = recover_producers(r, l, base)
        if how == 0:
            recover_scan(&s, r, r.fd, size, r.index, base)
            s.gaps = True
            s.producers = &r.producers
            s.producers_from = base
            how = recover_walk_on(r, size, &s)
        if how == 0:
            how = recover_first_timestamp(r, r.fd)
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


cdef int make_first(Recovery *r, Listing *l) noexcept nogil:
    """The segment of an empty log."""
    cdef char path[PATH_MAX_]
    cdef int64_t size
    cdef int err
    path_of(path, r.path, 0, ".log")
    if recover_open(r, path, True, &r.fd, &r.direct, &size) < 0:
        return -1
    err = file_sync(r.fd)
    if not err:
        err = dir_sync(r.path)
    if err:
        return recover_failed(r, "cannot make a segment", err)
    if directory_add(l, 0):
        return recover_failed(r, "cannot make a segment", ENOMEM)
    return 0


cdef int run(Recovery *r, Listing *l) noexcept nogil:
    cdef char path[PATH_MAX_]
    cdef int32_t i
    cdef int how
    if strlen(r.path) > PATH_MAX_ - 64:
        return recover_failed(r, "the path is too long", EINVAL)
    if r.create:
        how = dir_make(r.path)
        if how == EEXIST:
            r.error = STORAGE
            snprintf(r.why, sizeof(r.why), "the directory exists already")
            return -1
        if how:
            return recover_failed(r, "cannot make the directory", how)
    r.error = directory_list(r.path, l, r.why)
    if not r.error and l.swaps:
        how = swap_finish(r.path)
        if how:
            return recover_failed(r, "cannot finish a compaction", how)
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
        return recover_failed(r, "cannot open", ENOMEM)
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
            return recover_failed(r, "cannot open a segment", <int> -r.segments[i].size)
    r.segments_n = l.logs.n
    how = 1
    if r.clean and not l.next_segment:
        how = open_clean(r, l)
    if how == 1:
        how = recover_end(r, l)
    if how < 0:
        return -1
    recover_note_aborted(r)
    if recover_place_txns(r) < 0:
        return -1
    directory_clean_snapshots(r.path, l, r.next_offset)
    how = recover_keep_index(r)
    if how:
        return recover_failed(r, "cannot write an index", how)
    return recover_partial(r)


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
