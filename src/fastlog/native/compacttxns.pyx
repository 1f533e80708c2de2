"""See compacttxns.pxd."""
from libc.errno cimport ENOENT, ENOMEM
from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memset
from fastlog.native.aborted cimport ABORTED_ENTRY, Aborted, aborted_add, aborted_decode, aborted_free, aborted_room
from fastlog.native.batch cimport ATTR_CODEC, ATTR_TRANSACTIONAL, CODEC_NONE
from fastlog.native.batchrecords cimport Marker, batch_marker
from fastlog.native.compactwork cimport Dropped, Output, work_damaged
from fastlog.native.files cimport PATH_MAX_, SNAPSHOT_MAX, file_get, path_of


cdef int by_first_offset(const void *a, const void *b) noexcept nogil:
    cdef int64_t x = (<const Dropped *> a).txn.first_offset
    cdef int64_t y = (<const Dropped *> b).txn.first_offset
    return -1 if x < y else (1 if x > y else 0)


cdef int load_aborted(Work *w, int64_t base_offset) noexcept nogil:
    cdef char path[PATH_MAX_]
    cdef uint8_t *data = NULL
    cdef size_t n = 0
    cdef Aborted found
    cdef Dropped *grown
    cdef int32_t i
    cdef int err
    memset(&found, 0, sizeof(found))
    path_of(path, w.path, base_offset, ".txnindex")
    err = file_get(path, SNAPSHOT_MAX, &data, &n)
    if err or n < ABORTED_ENTRY:
        free(data)
        return 0 if err == ENOENT else err
    err = aborted_decode(&found, data, n // ABORTED_ENTRY * ABORTED_ENTRY, base_offset)
    free(data)
    if err < 0:
        w.at_offset = base_offset
        return work_damaged(w, 0, "a .txnindex that is none")
    grown = <Dropped *> realloc(w.all_aborted, (<size_t> w.all_aborted_n + <size_t> found.n) * sizeof(Dropped))
    if grown == NULL:
        aborted_free(&found)
        return ENOMEM
    w.all_aborted = grown
    for i in range(found.n):
        grown[w.all_aborted_n].txn = found.at[i]
        grown[w.all_aborted_n].met = False
        w.all_aborted_n += 1
    aborted_free(&found)
    return 0


cdef void sort_aborted(Work *w) noexcept nogil:
    if w.all_aborted_n:
        qsort(w.all_aborted, <size_t> w.all_aborted_n, sizeof(Dropped), by_first_offset)


cdef void txns_free(Txns *t) noexcept nogil:
    free(t.aborted)
    free(t.committed)
    memset(t, 0, sizeof(Txns))


cdef int txns_begin(Work *w) noexcept nogil:
    cdef int32_t i
    txns_free(&w.txns)
    for i in range(w.all_aborted_n):
        w.all_aborted[i].met = False
    if w.all_aborted_n:
        w.txns.aborted = <Dropped **> calloc(<size_t> w.all_aborted_n, sizeof(Dropped *))
        if w.txns.aborted == NULL:
            return ENOMEM
    return 0


cdef int32_t aborted_of(const Txns *t, int64_t producer_id) noexcept nogil:
    cdef int32_t i
    for i in range(t.aborted_n):
        if t.aborted[i].txn.producer_id == producer_id:
            return i
    return -1


cdef void txns_advance(Work *w, int64_t offset, int64_t from_offset) noexcept nogil:
    """Aborted transactions that began at or before `offset`, and did not end before `from_offset`, are under way now."""
    cdef Txns *t = &w.txns
    cdef Dropped *one
    while t.next < w.all_aborted_n and w.all_aborted[t.next].txn.first_offset <= offset:
        one = w.all_aborted + t.next
        t.next += 1
        if one.txn.last_offset >= from_offset and aborted_of(t, one.txn.producer_id) < 0:
            t.aborted[t.aborted_n] = one
            t.aborted_n += 1


cdef int txns_data(Work *w, const BatchInfo *info, int64_t from_offset, bint *aborted) noexcept nogil:
    cdef Txns *t = &w.txns
    cdef int64_t *grown
    cdef int32_t i
    aborted[0] = False
    txns_advance(w, info.base_offset + info.last_offset_delta, from_offset)
    if not info.attributes & ATTR_TRANSACTIONAL:
        return 0
    i = aborted_of(t, info.producer_id)
    if i >= 0:
        t.aborted[i].met = True
        aborted[0] = True
        return 0
    for i in range(t.committed_n):
        if t.committed[i] == info.producer_id:
            return 0
    if t.committed_n == t.committed_cap:
        grown = <int64_t *> realloc(t.committed, <size_t> (2 * t.committed_cap + 8) * sizeof(int64_t))
        if grown == NULL:
            return ENOMEM
        t.committed = grown
        t.committed_cap = 2 * t.committed_cap + 8
    t.committed[t.committed_n] = info.producer_id
    t.committed_n += 1
    return 0


cdef int txns_control(Work *w, const uint8_t *p, const BatchInfo *info, int64_t from_offset, bint *gone) noexcept nogil:
    cdef Txns *t = &w.txns
    cdef Dropped *one
    cdef Output *out = &w.output
    cdef Marker marker
    cdef int32_t i
    gone[0] = True
    txns_advance(w, info.base_offset + info.last_offset_delta, from_offset)
    if info.count == 0 or info.attributes & ATTR_CODEC != CODEC_NONE:
        gone[0] = info.count == 0
        return 0
    if batch_marker(p, <size_t> info.size, &marker) == 0 and not marker.commit:
        i = aborted_of(t, info.producer_id)
        if i < 0:
            return 0
        one = t.aborted[i]
        t.aborted_n -= 1
        t.aborted[i] = t.aborted[t.aborted_n]
        if not one.met:
            return 0
        gone[0] = False
        if out.fd >= 0:
            if aborted_room(&out.aborted, 1) < 0:
                return ENOMEM
            aborted_add(&out.aborted, one.txn.producer_id, one.txn.first_offset, one.txn.last_offset, one.txn.last_stable)
        return 0
    for i in range(t.committed_n):
        if t.committed[i] == info.producer_id:
            t.committed_n -= 1
            t.committed[i] = t.committed[t.committed_n]
            gone[0] = False
            return 0
    return 0
