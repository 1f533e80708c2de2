from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from fastlog.native.bytes cimport (
    Reader, get32, put32, read_i16, read_i32, read_i64, read_i8, read_uvarint, reader_init, reader_take,
)

from fastlog.native.loadclock cimport now_ns
from fastlog.native.loadhistogram cimport record
from fastlog.native.loadtemplate cimport Identity, write_head

cdef extern from "<sys/socket.h>" nogil:
    ctypedef struct msghdr "struct msghdr":
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t recv(int fd, void *buffer, size_t n, int flags)
    int MSG_NOSIGNAL
    int MSG_DONTWAIT

cdef enum:
    PIECES_PER_CALL = 1024          # IOV_MAX
    FILL_BYTES = 1 << 20            # made before the next look at the clock and the socket
    FILL_REQUESTS = 64
    COPIED_BYTES = 2048


cdef int producer_init(Producer *p, Load *load, int index, int fd, int64_t producer_id, int16_t producer_epoch) except -1:
    cdef uint32_t ring = 1
    cdef int i
    memset(p, 0, sizeof(Producer))
    load.copied = load.templates.rest_bytes <= COPIED_BYTES
    load.requests_per_fill = <int> max(<size_t> 1, min(<size_t> FILL_REQUESTS, <size_t> FILL_BYTES // load.request_bytes))
    p.load = load
    p.index = index
    p.fd = fd
    p.producer_id = producer_id
    p.producer_epoch = producer_epoch
    # Connections start apart, so that they don't walk the partitions in step.
    p.partition = <uint32_t> (<uint64_t> index * load.partitions // load.connections)
    p.filling = index % load.templates.fillings
    while ring < <uint32_t> load.window:
        ring *= 2
    p.ring_mask = ring - 1
    p.inbox_size = 65536 + 256 * <size_t> load.batches
    p.sequences = <int32_t *> calloc(load.partitions, sizeof(int32_t))
    p.offsets = <int64_t *> calloc(load.partitions, sizeof(int64_t))
    p.due_ns = <uint64_t *> calloc(ring, sizeof(uint64_t))
    p.small = <uint8_t *> malloc(load.requests_per_fill * (load.request_bytes if load.copied else small_bytes(load)))
    p.pieces = <iovec *> calloc(load.requests_per_fill * (2 * load.batches + 1) + 1, sizeof(iovec))
    p.inbox = <uint8_t *> malloc(p.inbox_size)
    if p.sequences == NULL or p.offsets == NULL or p.due_ns == NULL or p.small == NULL or p.pieces == NULL or p.inbox == NULL:
        raise MemoryError
    for i in range(load.partitions):
        p.offsets[i] = -1
    return 0


cdef size_t small_bytes(const Load *load) noexcept nogil:
    """What of a request is written anew."""
    return load.request_bytes - load.batches * load.templates.rest_bytes


cdef void producer_free(Producer *p) noexcept:
    free(p.sequences)
    free(p.offsets)
    free(p.due_ns)
    free(p.small)
    free(p.pieces)
    free(p.inbox)
    memset(p, 0, sizeof(Producer))


cdef inline void add_piece(Producer *p, void *at, size_t n) noexcept nogil:
    """Appends to what is sent; neighbours in memory become one piece."""
    cdef iovec *last
    if p.pieces_used:
        last = p.pieces + p.pieces_used - 1
        if <uint8_t *> last.iov_base + last.iov_len == <uint8_t *> at:
            last.iov_len += n
            return
    p.pieces[p.pieces_used].iov_base = at
    p.pieces[p.pieces_used].iov_len = n
    p.pieces_used += 1


cdef inline uint8_t *add_small(Producer *p, size_t n) noexcept nogil:
    cdef uint8_t *at = p.small + p.small_used
    p.small_used += n
    add_piece(p, at, n)
    return at


cdef inline int32_t sequence_after(int32_t sequence, int records) noexcept nogil:
    """Sequences wrap from 2^31-1 to 0."""
    return <int32_t> ((<uint32_t> sequence + <uint32_t> records) & 0x7FFFFFFF)


cdef void add_batch(Producer *p, uint64_t due) noexcept nogil:
    cdef Load *load = p.load
    cdef Identity who
    cdef uint8_t *at
    who.filling = <int> p.filling
    who.connection = p.index
    who.due_ns = due
    who.wall_ms = load.wall_ms
    who.producer_id = p.producer_id
    who.producer_epoch = p.producer_epoch
    who.sequence = p.sequences[p.partition] if p.producer_id >= 0 else -1
    at = add_small(p, load.item_bytes + load.templates.head_bytes)
    memcpy(at, load.item, load.item_bytes)
    put32(at, p.partition)
    write_head(load.templates, at + load.item_bytes, &who)
    if load.copied:
        at = add_small(p, load.templates.rest_bytes)
        memcpy(at, load.templates.rest[p.filling], load.templates.rest_bytes)
    else:
        add_piece(p, load.templates.rest[p.filling], load.templates.rest_bytes)
    add_small(p, 1)[0] = 0                                  # no tagged fields of the partition
    p.sequences[p.partition] = sequence_after(p.sequences[p.partition], load.templates.records)
    p.partition = (p.partition + 1) % <uint32_t> load.partitions
    p.filling = (p.filling + 1) % <uint32_t> load.templates.fillings


cdef void add_request(Producer *p, uint64_t due) noexcept nogil:
    cdef Load *load = p.load
    cdef uint8_t *at = add_small(p, load.prefix_bytes)
    cdef int _
    memcpy(at, load.prefix, load.prefix_bytes)
    put32(at + 8, p.made)                                   # correlation id
    for _ in range(load.batches):
        add_batch(p, due)
    at = add_small(p, 2)                                    # no tagged fields of the topic, nor of the request
    at[0] = 0
    at[1] = 0
    p.due_ns[p.made & p.ring_mask] = due
    p.made += 1
    load.made += 1


cdef Trouble send_pieces(Producer *p) noexcept nogil:
    """Sends until all is sent or the socket is full."""
    cdef msghdr message
    cdef ssize_t sent
    cdef iovec *piece
    memset(&message, 0, sizeof(msghdr))
    while p.pieces_sent < p.pieces_used:
        message.msg_iov = p.pieces + p.pieces_sent
        message.msg_iovlen = <size_t> min(p.pieces_used - p.pieces_sent, PIECES_PER_CALL)
        sent = sendmsg(p.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent < 0:
            if errno == EAGAIN:
                return NO_TROUBLE
            if errno == EINTR:
                continue
            return trouble_of(errno)
        p.load.bytes_sent += <uint64_t> sent
        while sent > 0:
            piece = p.pieces + p.pieces_sent
            if <size_t> sent < piece.iov_len:
                piece.iov_base = <uint8_t *> piece.iov_base + sent
                piece.iov_len -= <size_t> sent
                break
            sent -= <ssize_t> piece.iov_len
            p.pieces_sent += 1
    p.pieces_sent = 0
    p.pieces_used = 0
    p.small_used = 0
    return NO_TROUBLE


cdef Trouble producer_fill(Producer *p, uint64_t now, bint draining) noexcept nogil:
    cdef Load *load = p.load
    cdef Trouble trouble
    cdef uint64_t due
    cdef int made
    while True:
        if p.pieces_used:
            trouble = send_pieces(p)
            if trouble != NO_TROUBLE or p.pieces_used:
                return trouble
            if not load.answered:
                load.batches_acked += <uint64_t> (p.made - p.answered) * load.batches
                load.answers += p.made - p.answered
                p.answered = p.made
        made = 0
        while made < load.requests_per_fill and producer_in_flight(p) < <uint32_t> load.window:
            if load.rate > 0:
                if p.due == 0:
                    break
                # Requests are dealt to connections in turn. The time at which one was to be sent counts, not when it could be.
                due = load.start_ns + <uint64_t> (
                    (p.scheduled * <double> load.connections + p.index) * 1e9 / load.rate)
                p.scheduled += 1
                p.due -= 1
            elif draining:
                break
            else:
                due = now
            add_request(p, due)
            made += 1
        if not made:
            return NO_TROUBLE
        now = now_ns()


cdef Trouble take_answer(Producer *p, const uint8_t *frame, size_t n, uint64_t now) noexcept nogil:
    """One ProduceResponse (versions 9 to 13, response header 1)."""
    cdef Load *load = p.load
    cdef Reader r
    cdef uint32_t topics, partitions, errors, _
    cdef int32_t partition
    cdef int16_t error
    cdef int64_t offset
    cdef uint64_t due
    reader_init(&r, frame, n)
    if <uint32_t> read_i32(&r) != p.answered or producer_in_flight(p) == 0:
        return MALFORMED
    read_i8(&r)                                             # the header's tagged fields: none
    topics = read_uvarint(&r)
    if topics != 2:
        return MALFORMED
    reader_take(&r, 16 if load.topic_ids else read_uvarint(&r) - 1)
    partitions = read_uvarint(&r) - 1
    if partitions != <uint32_t> load.batches:
        return MALFORMED
    while partitions:
        partitions -= 1
        partition = read_i32(&r)
        error = read_i16(&r)
        offset = read_i64(&r)
        reader_take(&r, 16)                                 # append time, log start
        errors = read_uvarint(&r)
        for _ in range(1, errors):
            read_i32(&r)
            skip_text(&r)
            skip_tags(&r)
            if r.bad:
                return MALFORMED
        skip_text(&r)                                       # error message
        skip_tags(&r)
        if r.bad or not 0 <= partition < load.partitions:
            return MALFORMED
        load.errors[(error + 1) & (ERRORS - 1)] += 1
        if error:
            load.batches_failed += 1
            continue
        load.batches_acked += 1
        if offset <= p.offsets[partition]:
            load.disorder += 1
        p.offsets[partition] = offset
    due = p.due_ns[p.answered & p.ring_mask]
    p.answered += 1
    load.answers += 1
    if due >= load.record_from_ns:
        record(load.latency, now - due if now > due else 0)
    return NO_TROUBLE


cdef inline void skip_text(Reader *r) noexcept nogil:
    cdef uint32_t n = read_uvarint(r)
    if n > 1:
        reader_take(r, n - 1)


cdef inline void skip_tags(Reader *r) noexcept nogil:
    cdef uint32_t n = read_uvarint(r)
    while n and not r.bad:
        read_uvarint(r)
        reader_take(r, read_uvarint(r))
        n -= 1


cdef Trouble producer_receive(Producer *p) noexcept nogil:
    cdef size_t at, size, asked
    cdef ssize_t got
    cdef uint64_t now
    cdef Trouble trouble
    while True:
        asked = p.inbox_size - p.inbox_used
        got = recv(p.fd, p.inbox + p.inbox_used, asked, MSG_DONTWAIT)
        if got == 0:
            return CLOSED
        if got < 0:
            if errno == EINTR:
                continue
            return NO_TROUBLE if errno == EAGAIN else trouble_of(errno)
        p.inbox_used += <size_t> got
        now = now_ns()
        at = 0
        while p.inbox_used - at >= 4:
            size = get32(p.inbox + at)
            if size > p.inbox_size - 4:
                return TOO_LARGE
            if p.inbox_used - at < size + 4:
                break
            trouble = take_answer(p, p.inbox + at + 4, size, now)
            if trouble != NO_TROUBLE:
                return trouble
            at += size + 4
        memmove(p.inbox, p.inbox + at, p.inbox_used - at)
        p.inbox_used -= at
        if <size_t> got < asked:
            return NO_TROUBLE
