"""Producers that asked whether they may begin a transaction. See verify.pxd."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free


cdef Verification *verify_find(const Verifications *v, int64_t producer_id) noexcept nogil:
    cdef Verification *e = v.first
    while e != NULL and e.producer_id != producer_id:
        e = e.next
    return e


cdef void remove(Verifications *v, Verification *before, Verification *e) noexcept nogil:
    if before != NULL:
        before.next = e.next
    else:
        v.first = e.next
    if v.last == e:
        v.last = before
    v.n -= 1
    free(e)


cdef uint64_t verify_ask(Verifications *v, int64_t producer_id, int16_t epoch, int32_t sequence, bint bumps, int64_t now_ms) noexcept nogil:
    cdef Verification *e = verify_find(v, producer_id)
    if e == NULL:
        e = <Verification *> calloc(1, sizeof(Verification))
        if e == NULL:
            return 0
        if v.n == VERIFICATIONS_MAX:
            remove(v, NULL, v.first)
        v.guards += 1
        e.producer_id = producer_id
        e.guard = v.guards
        e.since_ms = now_ms
        e.lowest_sequence = sequence
        e.epoch = epoch
        e.bumps = bumps
        if v.last != NULL:
            v.last.next = e
        else:
            v.first = e
        v.last = e
        v.n += 1
    elif epoch > e.epoch or (epoch == e.epoch and sequence < e.lowest_sequence):
        e.epoch = epoch
        e.lowest_sequence = sequence
    return e.guard


cdef void verify_end(Verifications *v, int64_t producer_id) noexcept nogil:
    cdef Verification *before = NULL
    cdef Verification *e = v.first
    while e != NULL:
        if e.producer_id == producer_id:
            remove(v, before, e)
            return
        before = e
        e = e.next


cdef void verify_expire(Verifications *v, int64_t before_ms) noexcept nogil:
    while v.first != NULL and v.first.since_ms < before_ms:
        remove(v, NULL, v.first)


cdef void verify_free(Verifications *v) noexcept nogil:
    while v.first != NULL:
        remove(v, NULL, v.first)
