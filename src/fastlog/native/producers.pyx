"""Idempotent producers of a partition. See producers.pxd."""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memset
from fastlog.native.batch cimport ATTR_TRANSACTIONAL, BatchInfo
from fastlog.native.batchrecords cimport Marker
from fastlog.native.bytes cimport get16, get32, get64, put16, put32, put64
from fastlog.native.crc32c cimport crc32c
from fastlog.native.verify cimport Verification

cdef enum:
    SNAPSHOT_VERSION = 1
    SNAPSHOT_HEAD = 10              # version, CRC, count
    SNAPSHOT_CRC_FROM = 6
    SNAPSHOT_ENTRY = 46
    SEQUENCE_MAX = 2147483647
    EPOCH_MAX = 32767
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    TRANSACTION_COORDINATOR_FENCED = 52


cdef void producers_init(Producers *p) noexcept nogil:
    memset(p, 0, sizeof(Producers))


cdef void producers_free(Producers *p) noexcept nogil:
    cdef uint32_t i
    cdef Producer *e
    cdef Producer *following
    if p.buckets != NULL:
        for i in range(p.mask + 1):
            e = p.buckets[i]
            while e != NULL:
                following = e.chain
                free(e)
                e = following
        free(p.buckets)
    producers_init(p)


cdef inline uint32_t bucket_of(const Producers *p, int64_t id) noexcept nogil:
    return <uint32_t> ((<uint64_t> id * <uint64_t> 0x9E3779B97F4A7C15) >> 32) & p.mask


cdef Producer *find(const Producers *p, int64_t id) noexcept nogil:
    cdef Producer *e
    if p.buckets == NULL:
        return NULL
    e = p.buckets[bucket_of(p, id)]
    while e != NULL and e.id != id:
        e = e.chain
    return e


cdef const Producer *producers_find(const Producers *p, int64_t id) noexcept nogil:
    return find(p, id)


cdef bint widen(Producers *p) noexcept nogil:
    """Room for one more, keeping at most one entry a bucket on average."""
    cdef uint32_t size = p.mask + 1 if p.buckets != NULL else 0
    cdef Producer **old = p.buckets
    cdef Producer **made
    cdef Producer *e
    cdef Producer *following
    cdef uint32_t i
    cdef uint32_t b
    if p.count < size:
        return True
    made = <Producer **> calloc(size * 2 if size else 4, sizeof(Producer *))
    if made == NULL:
        return size != 0            # longer chains will do
    p.buckets = made
    p.mask = (size * 2 if size else 4) - 1
    for i in range(size):
        e = old[i]
        while e != NULL:
            following = e.chain
            b = bucket_of(p, e.id)
            e.chain = made[b]
            made[b] = e
            e = following
    free(old)
    return True


cdef Producer *get(Producers *p, int64_t id) noexcept nogil:
    cdef Producer *e = find(p, id)
    cdef uint32_t b
    if e != NULL or not widen(p):
        return e
    e = <Producer *> calloc(1, sizeof(Producer))
    if e == NULL:
        return NULL
    e.id = id
    e.epoch = -1
    e.coordinator_epoch = -1
    e.txn_first_offset = -1
    b = bucket_of(p, id)
    e.chain = p.buckets[b]
    p.buckets[b] = e
    p.count += 1
    return e


cdef inline int32_t sequence_after(int32_t sequence, int32_t n) noexcept nogil:
    """The sequence number n further on; after 2^31-1 comes 0."""
    return sequence + n if sequence <= SEQUENCE_MAX - n else n - (SEQUENCE_MAX - sequence) - 1


cdef inline int32_t sequence_before(int32_t sequence, int32_t n) noexcept nogil:
    return sequence - n if sequence >= n else SEQUENCE_MAX - (n - sequence) + 1


# ---- transactions --------------------------------------------------------------------------------------------------------------

cdef void begin_txn(Producers *p, Producer *e, int64_t first_offset, int64_t position) noexcept nogil:
    """Offsets only grow, so the newest transaction belongs at the end."""
    e.txn_first_offset = first_offset
    e.txn_position = position
    e.txn_next = NULL
    e.txn_prev = p.txn_last
    if p.txn_last != NULL:
        p.txn_last.txn_next = e
    else:
        p.txn_first = e
    p.txn_last = e


cdef void end_txn(Producers *p, Producer *e) noexcept nogil:
    if e.txn_prev != NULL:
        e.txn_prev.txn_next = e.txn_next
    else:
        p.txn_first = e.txn_next
    if e.txn_next != NULL:
        e.txn_next.txn_prev = e.txn_prev
    else:
        p.txn_last = e.txn_prev
    e.txn_next = NULL
    e.txn_prev = NULL
    e.txn_first_offset = -1


cdef int by_first_offset(const void *a, const void *b) noexcept nogil:
    cdef int64_t x = (<const Producer **> a)[0].txn_first_offset
    cdef int64_t y = (<const Producer **> b)[0].txn_first_offset
    return -1 if x < y else (1 if x > y else 0)


cdef int order_txns(Producers *p) noexcept nogil:
    """Lists the transactions under way of producers that were loaded. -1: no memory."""
    cdef Producer **found = <Producer **> malloc(<size_t> p.count * sizeof(Producer *) + 1)
    cdef Producer *e
    cdef uint32_t n = 0
    cdef uint32_t i
    if found == NULL:
        return -1
    for i in range(p.mask + 1 if p.buckets != NULL else 0):
        e = p.buckets[i]
        while e != NULL:
            if e.txn_first_offset >= 0:
                found[n] = e
                n += 1
            e = e.chain
    qsort(found, n, sizeof(Producer *), by_first_offset)
    for i in range(n):
        begin_txn(p, found[i], found[i].txn_first_offset, -1)
    free(found)
    return 0


cdef bint producers_in_txn(const Producers *p, int64_t id, int16_t epoch) noexcept nogil:
    cdef const Producer *e = find(p, id)
    return e != NULL and e.txn_first_offset >= 0 and e.epoch == epoch


cdef int64_t producers_stable(const Producers *p, int64_t id, int64_t offset) noexcept nogil:
    cdef const Producer *e = p.txn_first
    while e != NULL:
        if e.id != id:
            return e.txn_first_offset
        e = e.txn_next
    return offset + 1


cdef int16_t producers_check_end(const Producers *p, const BatchInfo *info, const Marker *marker, int version) noexcept nogil:
    cdef const Producer *e = find(p, info.producer_id)
    if e == NULL:
        return PRODUCER_OK
    if info.producer_epoch < e.epoch:
        return INVALID_PRODUCER_EPOCH
    # one sent again finds its transaction ended; at the last epoch there is none to go to
    if version >= 2 and info.producer_epoch == e.epoch and e.txn_first_offset >= 0 and e.epoch != EPOCH_MAX:
        return INVALID_PRODUCER_EPOCH
    return TRANSACTION_COORDINATOR_FENCED if e.coordinator_epoch > marker.coordinator_epoch else PRODUCER_OK


cdef int producers_end(Producers *p, const BatchInfo *info, const Marker *marker, int64_t *first_offset, int64_t *position) noexcept nogil:
    cdef Producer *e = get(p, info.producer_id)
    first_offset[0] = -1
    position[0] = -1
    if e == NULL:
        return -1
    set_epoch(e, info.producer_epoch)
    e.coordinator_epoch = marker.coordinator_epoch
    e.last_timestamp = info.max_timestamp
    if e.txn_first_offset >= 0:
        first_offset[0] = e.txn_first_offset
        position[0] = e.txn_position
        end_txn(p, e)
    return 0


# ---- batches -------------------------------------------------------------------------------------------------------------------

cdef inline void set_epoch(Producer *e, int16_t epoch) noexcept nogil:
    if e.epoch != epoch:
        e.epoch = epoch
        e.count = 0
        e.newest = 0


cdef int16_t producers_check(const Producers *p, const BatchInfo *info, bint may_begin, const Verification *asked,
                             const ProducerBatch **original) noexcept nogil:
    cdef Producer *e
    cdef const ProducerBatch *b
    cdef int32_t last
    cdef int i
    if info.producer_id < 0:
        return PRODUCER_OK
    e = find(p, info.producer_id)
    if e != NULL and info.base_sequence >= 0 and info.producer_epoch == e.epoch:
        last = sequence_after(info.base_sequence, info.last_offset_delta)
        for i in range(e.count):
            b = &e.batches[i]
            if b.last_sequence == last and sequence_before(last, b.delta) == info.base_sequence:
                original[0] = b
                return PRODUCER_DUPLICATE
    if not may_begin and info.attributes & ATTR_TRANSACTIONAL and \
            (e == NULL or e.txn_first_offset < 0 or e.epoch != info.producer_epoch):
        return INVALID_TXN_STATE
    if e != NULL and info.producer_epoch < e.epoch:
        return INVALID_PRODUCER_EPOCH
    if info.base_sequence >= 0:     # only the epoch counts for what coordinators write
        if asked != NULL and (info.base_sequence > asked.lowest_sequence or
                              (asked.bumps and info.base_sequence != 0 and (e == NULL or e.count == 0))):
            return OUT_OF_ORDER_SEQUENCE_NUMBER
        if e != NULL and info.producer_epoch != e.epoch:
            if info.base_sequence != 0 and e.epoch != -1:
                return OUT_OF_ORDER_SEQUENCE_NUMBER
        elif e != NULL:
            last = e.batches[e.newest].last_sequence if e.count else -1
            if <int64_t> info.base_sequence != <int64_t> last + 1 and (info.base_sequence != 0 or last != SEQUENCE_MAX):
                return OUT_OF_ORDER_SEQUENCE_NUMBER
    if e != NULL and e.txn_first_offset >= 0 and not info.attributes & ATTR_TRANSACTIONAL:
        return INVALID_TXN_STATE
    return PRODUCER_OK


cdef int producers_add(Producers *p, const BatchInfo *info, int64_t base_offset, int64_t end) noexcept nogil:
    cdef Producer *e
    cdef ProducerBatch *b
    if info.producer_id < 0:
        return 0
    e = get(p, info.producer_id)
    if e == NULL:
        return -1
    set_epoch(e, info.producer_epoch)
    e.last_timestamp = info.max_timestamp
    if e.count < PRODUCER_BATCHES:
        e.newest = e.count
        e.count += 1
    else:
        e.newest = <int8_t> ((e.newest + 1) % PRODUCER_BATCHES)
    b = &e.batches[e.newest]
    b.last_sequence = sequence_after(info.base_sequence, info.last_offset_delta) if info.base_sequence >= 0 else -1
    b.last_offset = base_offset + info.last_offset_delta
    b.delta = info.last_offset_delta
    b.timestamp = info.max_timestamp
    b.end = end
    if info.attributes & ATTR_TRANSACTIONAL and e.txn_first_offset < 0:
        begin_txn(p, e, base_offset, end - info.size if end else -1)
    return 0


cdef void producers_expire(Producers *p, int64_t before_ms) noexcept nogil:
    cdef uint32_t i
    cdef Producer **at
    cdef Producer *e
    if p.buckets == NULL:
        return
    for i in range(p.mask + 1):
        at = p.buckets + i
        while at[0] != NULL:
            e = at[0]
            if e.last_timestamp < before_ms and e.txn_first_offset < 0:
                at[0] = e.chain
                p.count -= 1
                free(e)
            else:
                at = &e.chain


cdef void producers_shed(Producers *p) noexcept nogil:
    cdef int64_t oldest = 0x7FFFFFFFFFFFFFFF
    cdef int64_t newest = 0
    cdef uint32_t i
    cdef Producer *e
    if p.buckets == NULL:
        return
    for i in range(p.mask + 1):
        e = p.buckets[i]
        while e != NULL:
            if e.last_timestamp < oldest:
                oldest = e.last_timestamp
            if e.last_timestamp > newest:
                newest = e.last_timestamp
            e = e.chain
    producers_expire(p, oldest + (newest - oldest) // 8 + 1)


cdef size_t producers_snapshot_bytes(const Producers *p) noexcept nogil:
    return SNAPSHOT_HEAD + <size_t> p.count * SNAPSHOT_ENTRY


cdef void producers_snapshot(const Producers *p, uint8_t *out) noexcept nogil:
    cdef uint8_t *at = out + SNAPSHOT_HEAD
    cdef uint32_t i
    cdef Producer *e
    cdef ProducerBatch *b
    put16(out, SNAPSHOT_VERSION)
    put32(out + SNAPSHOT_CRC_FROM, p.count)
    if p.buckets != NULL:
        for i in range(p.mask + 1):
            e = p.buckets[i]
            while e != NULL:
                b = &e.batches[e.newest]
                put64(at, <uint64_t> e.id)
                put16(at + 8, <uint16_t> e.epoch)
                put32(at + 10, <uint32_t> (b.last_sequence if e.count else -1))
                put64(at + 14, <uint64_t> (b.last_offset if e.count else -1))
                put32(at + 22, <uint32_t> (b.delta if e.count else 0))
                put64(at + 26, <uint64_t> e.last_timestamp)
                put32(at + 34, <uint32_t> e.coordinator_epoch)
                put64(at + 38, <uint64_t> e.txn_first_offset)
                at += SNAPSHOT_ENTRY
                e = e.chain
    put32(out + 2, crc32c(0, out + SNAPSHOT_CRC_FROM, <size_t> (at - out) - SNAPSHOT_CRC_FROM))


cdef int producers_load(Producers *p, const uint8_t *data, size_t n) noexcept nogil:
    cdef const uint8_t *at = data + SNAPSHOT_HEAD
    cdef uint32_t count
    cdef uint32_t _i
    cdef Producer *e
    cdef ProducerBatch *b
    producers_free(p)
    if n < SNAPSHOT_HEAD or get16(data) != SNAPSHOT_VERSION:
        return -1
    count = get32(data + SNAPSHOT_CRC_FROM)
    if <size_t> count != (n - SNAPSHOT_HEAD) // SNAPSHOT_ENTRY or n != SNAPSHOT_HEAD + <size_t> count * SNAPSHOT_ENTRY:
        return -1
    if get32(data + 2) != crc32c(0, data + SNAPSHOT_CRC_FROM, n - SNAPSHOT_CRC_FROM):
        return -1
    for _i in range(count):
        e = get(p, <int64_t> get64(at))
        if e == NULL:
            producers_free(p)
            return -1
        e.epoch = <int16_t> get16(at + 8)
        e.last_timestamp = <int64_t> get64(at + 26)
        e.coordinator_epoch = <int32_t> get32(at + 34)
        e.txn_first_offset = <int64_t> get64(at + 38)
        e.count = 0
        e.newest = 0
        if <int64_t> get64(at + 14) >= 0:
            e.count = 1
            b = &e.batches[0]
            b.last_sequence = <int32_t> get32(at + 10)
            b.last_offset = <int64_t> get64(at + 14)
            b.delta = <int32_t> get32(at + 22)
            b.timestamp = e.last_timestamp
            b.end = 0
        at += SNAPSHOT_ENTRY
    if order_txns(p) < 0:
        producers_free(p)
        return -1
    return 0
