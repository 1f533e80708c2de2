"""See fetchread.pxd."""
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastlog.native.aborted cimport aborted_free
from fastlog.native.fetchwork cimport FetchRead, FetchWork
from fastlog.native.log cimport Pin, Read, log_read, log_release
from fastlog.native.mail cimport mail_send
from fastlog.native.net cimport MAIL_READ, MAIL_READ_DONE, MAIL_RELEASE, MAIL_RELEASED, counter_add
from fastlog.native.session cimport FETCH_SLAB, FetchPart
from fastlog.native.slab cimport slab_get, slab_put


cdef bint fetch_read_start(FetchWork *work, FetchPart *p) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchRead *rd = <FetchRead *> slab_get(&shard.fetch_free, &shard.fetch_free_n, FETCH_SLAB)
    if rd == NULL:
        return False
    rd.next = work.reads
    work.reads = rd
    rd.work = work
    rd.home = shard
    rd.part = p
    p.read = rd
    rd.read.part = p.part
    rd.read.offset = p.offset
    rd.read.bytes_max = p.bytes_max if p.bytes_max < work.budget else <int32_t> work.budget
    rd.read.whole_first = work.total == 0 and work.outstanding == 0
    rd.read.committed_only = work.committed
    if rd.read.bytes_max <= 0:
        if not rd.read.whole_first:
            p.read = NULL
            work.reads = rd.next
            slab_put(&shard.fetch_free, &shard.fetch_free_n, rd)
            return True
        rd.read.bytes_max = 1
    rd.reserved = rd.read.bytes_max
    work.budget -= rd.reserved
    rd.out = True
    work.outstanding += 1
    p.part.users[shard.index] += 1
    if p.part.owner == shard.index:
        rd.read.done = read_here
        log_read(shard.store, &rd.read)
    else:
        counter_add(&shard.counters.cross_reads, 1)
        mail_send(shard.out[p.part.owner], MAIL_READ, 0, rd)
        shard.out_dirty = 1
    return True


cdef void read_here(Read *r) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> r
    fetch_read_done(rd.home, rd)


cdef void fetch_read_here(Shard *owner, void *what) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> what
    rd.read.done = read_for_other
    log_read(owner.store, &rd.read)


cdef void read_for_other(Read *r) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> r
    cdef Shard *owner = rd.home.peers[r.part.owner]
    mail_send(owner.out[rd.home.index], MAIL_READ_DONE, 0, rd)
    owner.out_dirty = 1


cdef void fetch_read_done(Shard *home, void *what) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> what
    cdef FetchWork *work = rd.work
    cdef FetchPart *p = rd.part
    work.outstanding -= 1
    rd.bytes = rd.read.bytes
    work.budget += rd.reserved - <int64_t> rd.bytes
    work.total += rd.bytes
    if rd.read.error:
        p.error = rd.read.error
        work.failed = True
    else:
        p.high_watermark = rd.read.high_watermark
        p.last_stable = rd.read.last_stable
        p.log_start = rd.read.log_start
        rd.aborted = rd.read.aborted
        memset(&rd.read.aborted, 0, sizeof(rd.read.aborted))
        if work.copy_out and rd.bytes:
            fetch_read_copy(work, rd)
    work.read_done(work)


cdef bint fetch_read_copy(FetchWork *work, FetchRead *rd) noexcept nogil:
    cdef uint8_t *at = NULL
    cdef Pin *pin = rd.read.pins
    if work.shard.bufs.used + rd.bytes <= work.shard.bufs.used_max:
        at = <uint8_t *> malloc(rd.bytes)
    if at == NULL:
        return False
    work.shard.bufs.used += rd.bytes
    rd.copied = at
    while pin != NULL:
        memcpy(at, pin.base, pin.length)
        at += pin.length
        pin = pin.next
    counter_add(&work.shard.counters.copied_out, 1)
    counter_add(&work.shard.counters.copied_out_bytes, rd.bytes)
    fetch_read_release(work, rd)
    return True


cdef void fetch_reads_fit(FetchWork *work) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchRead *rd = work.reads
    while rd != NULL and work.budget < 0:
        if 0 < rd.bytes < work.total:       # one that is alone is let through, whatever its length
            work.budget += rd.bytes
            work.total -= rd.bytes
            if rd.copied != NULL:
                shard.bufs.used -= rd.bytes
                free(rd.copied)
                rd.copied = NULL
            aborted_free(&rd.aborted)
            memset(&rd.aborted, 0, sizeof(rd.aborted))
            rd.bytes = 0
        rd = rd.next


# ---- giving back ---------------------------------------------------------------------------------------------------------------

cdef void fetch_read_release(FetchWork *work, FetchRead *rd) noexcept nogil:
    cdef Shard *shard = work.shard
    if not rd.out:
        return
    if rd.read.part.owner == shard.index:
        log_release(shard.store, &rd.read)
        rd.out = False
        rd.read.part.users[shard.index] -= 1
    else:
        rd.out = False
        work.outstanding += 1
        mail_send(shard.out[rd.read.part.owner], MAIL_RELEASE, 0, rd)
        shard.out_dirty = 1


cdef void fetch_release_here(Shard *owner, void *what) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> what
    log_release(owner.store, &rd.read)
    mail_send(owner.out[rd.home.index], MAIL_RELEASED, 0, rd)
    owner.out_dirty = 1


cdef void fetch_released(Shard *home, void *what) noexcept nogil:
    cdef FetchRead *rd = <FetchRead *> what
    cdef FetchWork *work = rd.work
    rd.read.part.users[home.index] -= 1
    work.outstanding -= 1
    if work.outstanding == 0:
        work.released(work)


cdef void fetch_reads_release(FetchWork *work) noexcept nogil:
    cdef FetchRead *rd = work.reads
    while rd != NULL:
        fetch_read_release(work, rd)
        rd = rd.next
    if work.outstanding == 0:
        fetch_reads_free(work)


cdef void fetch_reads_free(FetchWork *work) noexcept nogil:
    cdef Shard *shard = work.shard
    cdef FetchRead *rd
    while work.reads != NULL:
        rd = work.reads
        work.reads = rd.next
        aborted_free(&rd.aborted)
        if rd.copied != NULL:
            shard.bufs.used -= rd.bytes
            free(rd.copied)
        slab_put(&shard.fetch_free, &shard.fetch_free_n, rd)
