from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int16_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastlog.native.bytes cimport (
    Reader, get32, get64, put32, put64, read_i16, read_i32, read_uvarint, reader_init, reader_take,
)

from fastlog.native.loadclock cimport now_ns
from fastlog.native.loadhistogram cimport record
from fastlog.native.loadproduce cimport CLOSED, MALFORMED, NO_TROUBLE, TOO_LARGE, trouble_of
from fastlog.native.loadtemplate cimport BAD_CRC, BATCH_HEADER, FOREIGN, Finding, INTACT, Stamp, inspect_batch

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t n, int flags)
    ssize_t send(int fd, const void *buffer, size_t n, int flags)
    int MSG_NOSIGNAL
    int MSG_DONTWAIT


cdef int consumer_init(Consumer *c, Drain *drain, int fd, bytes request, list offset_at, list ids, list first, list until,
                       size_t inbox_size) except -1:
    cdef int i, n = len(ids)
    cdef const unsigned char *view = request
    if not n == len(offset_at) == len(first) == len(until):
        raise ValueError("one offset, one start and one end for each partition")
    memset(c, 0, sizeof(Consumer))
    c.drain = drain
    c.fd = fd
    c.partitions = n
    c.request_bytes = len(request)
    c.inbox_size = inbox_size
    c.slots_size = max(ids) + 1
    c.slots = <int32_t *> calloc(c.slots_size, sizeof(int32_t))
    c.ids = <int32_t *> calloc(n, sizeof(int32_t))
    c.first = <int64_t *> calloc(n, sizeof(int64_t))
    c.next = <int64_t *> calloc(n, sizeof(int64_t))
    c.until = <int64_t *> calloc(n, sizeof(int64_t))
    c.offset_at = <size_t *> calloc(n, sizeof(size_t))
    c.request = <uint8_t *> malloc(c.request_bytes)
    c.inbox = <uint8_t *> malloc(inbox_size)
    if (c.slots == NULL or c.ids == NULL or c.first == NULL or c.next == NULL or c.until == NULL or c.offset_at == NULL
            or c.request == NULL or c.inbox == NULL):
        raise MemoryError
    memcpy(c.request, view, c.request_bytes)
    for i in range(c.slots_size):
        c.slots[i] = -1
    for i in range(n):
        c.slots[<int> ids[i]] = i
        c.ids[i] = ids[i]
        c.first[i] = c.next[i] = first[i]
        c.until[i] = until[i]
        c.offset_at[i] = offset_at[i]
        if c.offset_at[i] + 8 > c.request_bytes:
            raise ValueError("an offset lies outside the request")
    return 0


cdef void consumer_free(Consumer *c) noexcept:
    free(c.slots)
    free(c.ids)
    free(c.first)
    free(c.next)
    free(c.until)
    free(c.offset_at)
    free(c.request)
    free(c.inbox)
    memset(c, 0, sizeof(Consumer))


cdef Trouble consumer_ask(Consumer *c) noexcept nogil:
    cdef size_t at = 0
    cdef ssize_t sent
    cdef int i
    put32(c.request + 8, c.correlation)
    for i in range(c.partitions):
        put64(c.request + c.offset_at[i], <uint64_t> c.next[i])
    c.sent_ns = now_ns()
    while at < c.request_bytes:
        # The socket is empty, as only one request is ever in flight: waiting for room is short.
        sent = send(c.fd, c.request + at, c.request_bytes - at, MSG_NOSIGNAL)
        if sent < 0 and errno != EAGAIN and errno != EINTR:
            return trouble_of(errno)
        if sent > 0:
            at += <size_t> sent
    c.waiting = True
    return NO_TROUBLE


cdef Trouble take_batch(Consumer *c, int slot, const uint8_t *p, size_t n, uint64_t now) noexcept nogil:
    """One whole batch of n bytes."""
    cdef Drain *d = c.drain
    cdef Stamp stamp
    cdef Finding found
    cdef int64_t base = <int64_t> get64(p)
    cdef int64_t after = base + <int32_t> get32(p + 23) + 1
    if base != c.next[slot]:
        d.gaps += 1
    if after <= c.next[slot]:
        return NO_TROUBLE                                   # a fetch may start with the batch that holds its offset
    c.next[slot] = after
    d.batches += 1
    d.records += <uint64_t> get32(p + 57)
    d.bytes += n
    if not d.check_contents:
        return NO_TROUBLE
    found = inspect_batch(d.templates, p, n, &stamp)
    if found == BAD_CRC:
        d.bad_crc += 1
    elif found == FOREIGN:
        d.foreign += 1
    elif found == INTACT and stamp.due_ns >= d.record_from_ns:
        record(d.end_to_end, now - stamp.due_ns if now > stamp.due_ns else 0)
    return NO_TROUBLE


cdef Trouble take_partition(Consumer *c, Reader *r, uint64_t now) noexcept nogil:
    cdef Drain *d = c.drain
    cdef int32_t partition = read_i32(r)
    cdef int16_t error = read_i16(r)
    cdef uint32_t aborted, n
    cdef size_t length
    cdef const uint8_t *p
    cdef const uint8_t *end
    cdef int slot
    reader_take(r, 24)                                      # high watermark, last stable offset, log start
    aborted = read_uvarint(r)
    while aborted > 1 and not r.bad:
        reader_take(r, 16)
        skip_tags(r)
        aborted -= 1
    read_i32(r)                                             # preferred replica
    n = read_uvarint(r)
    p = reader_take(r, n - 1 if n else 0)
    skip_tags(r)
    if r.bad or not 0 <= partition < c.slots_size or c.slots[partition] < 0:
        return MALFORMED
    slot = c.slots[partition]
    d.errors[(error + 1) & (ERRORS - 1)] += 1
    end = p + (n - 1 if n else 0)
    while end - p >= BATCH_HEADER:
        length = <size_t> get32(p + 8) + 12
        if length < BATCH_HEADER or p[16] != 2:
            return MALFORMED
        if length > <size_t> (end - p):
            break                                           # the limit of bytes may cut the last one
        take_batch(c, slot, p, length, now)
        p += length
    if c.drain.rewind and c.until[slot] >= 0 and c.next[slot] >= c.until[slot]:
        c.next[slot] = c.first[slot]
    return NO_TROUBLE


cdef inline void skip_tags(Reader *r) noexcept nogil:
    cdef uint32_t n = read_uvarint(r)
    while n and not r.bad:
        read_uvarint(r)
        reader_take(r, read_uvarint(r))
        n -= 1


cdef Trouble take_answer(Consumer *c, const uint8_t *frame, size_t n, uint64_t now) noexcept nogil:
    """One FetchResponse (versions 12 to 18, response header 1)."""
    cdef Drain *d = c.drain
    cdef Reader r
    cdef uint32_t topics, partitions
    cdef uint64_t batches = d.batches
    cdef int16_t error
    cdef Trouble trouble
    cdef int i
    reader_init(&r, frame, n)
    if <uint32_t> read_i32(&r) != c.correlation:
        return MALFORMED
    skip_tags(&r)
    read_i32(&r)                                            # throttle time
    error = read_i16(&r)
    read_i32(&r)                                            # session id
    topics = read_uvarint(&r)
    while topics > 1 and not r.bad:
        reader_take(&r, 16 if d.topic_ids else read_uvarint(&r) - 1)
        partitions = read_uvarint(&r)
        while partitions > 1 and not r.bad:
            trouble = take_partition(c, &r, now)
            if trouble != NO_TROUBLE:
                return trouble
            partitions -= 1
        skip_tags(&r)
        topics -= 1
    skip_tags(&r)
    if r.bad:
        return MALFORMED
    if error:
        d.errors[(error + 1) & (ERRORS - 1)] += 1
    c.correlation += 1
    c.waiting = False
    d.fetches += 1
    if d.batches == batches:
        d.empty += 1
    elif c.sent_ns >= d.record_from_ns:
        record(d.latency, now - c.sent_ns)
    c.finished = not d.rewind
    for i in range(c.partitions):
        if c.until[i] < 0 or c.next[i] < c.until[i]:
            c.finished = False
    return NO_TROUBLE


cdef Trouble consumer_receive(Consumer *c, bint last) noexcept nogil:
    cdef size_t size, asked
    cdef ssize_t got
    cdef Trouble trouble
    while True:
        # Only one answer is ever due: never read past its end, so it always starts at the buffer's start.
        asked = c.inbox_size - c.inbox_used
        got = recv(c.fd, c.inbox + c.inbox_used, asked, MSG_DONTWAIT)
        if got == 0:
            return CLOSED
        if got < 0:
            if errno == EINTR:
                continue
            return NO_TROUBLE if errno == EAGAIN else trouble_of(errno)
        c.inbox_used += <size_t> got
        if c.inbox_used < 4:
            continue
        size = get32(c.inbox)
        if size > c.inbox_size - 4:
            return TOO_LARGE
        if c.inbox_used > size + 4 or not c.waiting:
            return MALFORMED
        if c.inbox_used == size + 4:
            trouble = take_answer(c, c.inbox + 4, size, now_ns())
            if trouble != NO_TROUBLE:
                return trouble
            c.inbox_used = 0
            if not last and not c.finished:
                trouble = consumer_ask(c)
                if trouble != NO_TROUBLE:
                    return trouble
        if <size_t> got < asked:
            return NO_TROUBLE
