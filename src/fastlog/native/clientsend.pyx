"""See clientsend.pxd. Produce requests and responses: versions 3 to 11 (protocol guide; schemas/000_produce.schema)."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp

from fastlog.native.bytes cimport Reader, Writer, put32, read_i16, read_i32, read_i64, reader_init, write_bytes, write_i16, \
    write_i32, writer_init
from fastlog.native.clientbatch cimport BATCH_SENT, OutBatch, batch_number, batch_seal
from fastlog.native.clientlink cimport CLOCK_MONOTONIC, EPOLLOUT, clock_us, close, epoll_ready, eventfd_clear, link_close, link_flush, \
    link_next, link_open, link_push, link_receive
from fastlog.native.clientproduce cimport LOST_CLOSED, LOST_TIME, PEER_ABSENT, PEER_HANDED, PEER_UP, PEER_WANTED, \
    WANT_LINK, WANT_METADATA, WANT_PRODUCER_ID, WANT_TRANSACTION, Core, Part, Peer, Request, Topic, close_open, complete, core_purge, \
    core_wake, \
    deactivate, dequeue, enqueue
from fastlog.native.threads cimport pthread_cond_broadcast, pthread_join, pthread_mutex_lock, pthread_mutex_unlock, thread_start
from fastlog.native.wire cimport wire_length, wire_put_length, wire_put_string, wire_put_tags, wire_skip_tags, wire_string

cdef extern from *:
    """
    #define fl_add(p, n) __atomic_add_fetch((p), (n), __ATOMIC_RELAXED)
    """
    void add_int "fl_add"(int *p, int n) noexcept nogil

cdef enum:
    ATTR_TRANSACTIONAL = 0x10
    FRAME_MAX = 16 << 20            # an answer to Produce is small
    FLEXIBLE_FROM = 9
    SLEEP_MAX_US = 1000000
    EPOCH_MAX = 32767
    ASK_AGAIN_US = 50000            # between two askings of the control thread, at the least

cdef enum:                          # Kafka's error codes that mean more than success or failure here
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    REPLICA_NOT_AVAILABLE = 9
    NETWORK_EXCEPTION = 13
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    DUPLICATE_SEQUENCE_NUMBER = 46
    CONCURRENT_TRANSACTIONS = 51
    KAFKA_STORAGE_ERROR = 56
    UNKNOWN_PRODUCER_ID = 59
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75
    THROTTLING_QUOTA_EXCEEDED = 89


cdef int core_start(Core *c) noexcept nogil:
    cdef int error = thread_start(&c.thread, <void *(*)(void *) noexcept nogil> sender_run, c, b"fastlog-produce")
    c.started = error == 0
    return error


cdef void core_stop(Core *c) noexcept nogil:
    pthread_mutex_lock(&c.lock)
    c.stopping = True
    core_wake(c)
    pthread_cond_broadcast(&c.control)
    pthread_mutex_unlock(&c.lock)
    if c.started:
        pthread_join(c.thread, NULL)
        c.started = False


cdef void lock(Core *c) noexcept nogil:
    add_int(&c.waiting, 1)
    pthread_mutex_lock(&c.lock)
    add_int(&c.waiting, -1)


cdef void ask(Core *c, int what) noexcept nogil:
    if not c.wanted & what:
        c.wanted |= what
        pthread_cond_broadcast(&c.control)


# ---- what is due ---------------------------------------------------------------------------------------------------------------

cdef void give_up(Core *c, Part *p, int16_t error) noexcept nogil:
    """The partition's first batch fails; what was never numbered leaves no gap."""
    cdef OutBatch *b = dequeue(p)
    if b.sequence >= 0:
        p.bump = True
    complete(c, b, error, -1, -1)


cdef bint expired(Core *c, OutBatch *b, int64_t now, int64_t *next) noexcept nogil:
    if now - b.made_us >= c.set.delivery_us:
        return True
    next[0] = min(next[0], b.made_us + c.set.delivery_us)
    return False


cdef void begin_epoch(Core *c, Part *p) noexcept nogil:
    """Numbers begin anew in an epoch of our own (KIP-360). Nothing that waits may be stored: it would be taken for new."""
    cdef OutBatch *b = p.head
    if c.producer_epoch + p.epochs == EPOCH_MAX:
        c.worn_out = True
        return
    p.bump = p.proven = False
    p.epochs += 1
    p.sequence = 0
    while b != NULL:
        b.sequence = -1
        b = b.next


cdef Peer *peer_of(Core *c, int32_t node) noexcept nogil:
    """The peer of a broker, made when there is none; NULL without memory."""
    cdef int i
    cdef Peer *peer
    for i in range(c.peers_n):
        if c.peers[i].node == node:
            return c.peers[i]
    if c.peers_n == 1024:
        return NULL
    if c.peers == NULL:
        c.peers = <Peer **> calloc(1024, sizeof(void *))
        if c.peers == NULL:
            return NULL
    peer = <Peer *> calloc(1, sizeof(Peer))
    if peer == NULL:
        return NULL
    peer.node = node
    peer.link.fd = peer.fd = -1
    c.peers[c.peers_n] = peer
    c.peers_n += 1
    return peer


cdef void pick(Core *c, Part *p, int64_t now, int64_t *next) noexcept nogil:
    """Takes the partition's first batch into its leader's next request, if it may go."""
    cdef OutBatch *b = p.head
    cdef Peer *peer
    cdef OutBatch **at
    if b.retry_us > now:
        next[0] = min(next[0], b.retry_us)
        return
    if p.in_flight and b.attempts > 0:          # alone, and before all behind it
        return
    # a broker that knows nothing of a producer takes any sequence for its first: a second batch must not overtake the first
    if p.in_flight and c.set.idempotent and not p.proven:
        return
    # one that was sent before may be stored, though nobody heard of it: its old number tells, so it goes once more under that
    if p.bump and b.sequence < 0:
        if p.in_flight:
            return
        begin_epoch(c, p)
    if c.worn_out and b.sequence < 0:
        return
    if p.leader < 0:
        ask(c, WANT_METADATA)
        next[0] = min(next[0], now + ASK_AGAIN_US)
        return
    if c.set.idempotent and c.producer_id < 0:
        ask(c, WANT_PRODUCER_ID)
        return
    if c.set.transactional and not p.in_transaction:
        p.wants_transaction = True
        ask(c, WANT_TRANSACTION)
        return
    peer = peer_of(c, p.leader)
    if peer == NULL:
        return
    if peer.state != PEER_UP:
        if peer.state == PEER_ABSENT:
            if peer.again_us > now:
                next[0] = min(next[0], peer.again_us)
                return
            peer.state = PEER_WANTED
        if peer.state == PEER_WANTED:
            ask(c, WANT_LINK)
        return
    if peer.in_flight >= c.set.max_in_flight or (peer.picked_bytes and peer.picked_bytes + b.used > c.set.max_request_size):
        return
    dequeue(p)
    b.state = BATCH_SENT
    p.in_flight += 1
    if c.set.idempotent:
        if b.sequence < 0:
            b.sequence = p.sequence
            b.producer_id = c.producer_id
            b.producer_epoch = <int16_t> (c.producer_epoch + p.epochs)
            p.sequence = <int32_t> ((<uint32_t> p.sequence + <uint32_t> b.count) & 0x7FFFFFFF)
            if b.sealed:
                b.attempts += 1                 # the seal below numbers a new batch; this one has to be numbered anew
    peer.picked_bytes += b.used
    at = &peer.picked
    while at[0] != NULL and at[0].topic <= b.topic:
        at = &at[0].next
    b.next = at[0]
    at[0] = b


cdef bint numbered(Core *c) noexcept nogil:
    """Whether any batch has a number by which the broker may still know it."""
    cdef Part *p = c.active
    while p != NULL:
        if p.in_flight or (p.head != NULL and p.head.sequence >= 0):
            return True
        p = p.after
    return False


cdef int64_t drain(Core *c, int64_t now) noexcept nogil:
    """Closes open batches that are due, and picks what can be sent. Returns when to look again, at the latest."""
    cdef int64_t next = now + SLEEP_MAX_US
    cdef bint rush = c.flushing > 0 or c.short_of_room > 0 or c.stopping
    cdef Part *p = c.active
    cdef Part *following
    while p != NULL:
        following = p.after
        if p.open != NULL:
            if rush or p.open.made_us + c.set.linger_us <= now:
                close_open(p)
            else:
                next = min(next, p.open.made_us + c.set.linger_us)
        while p.head != NULL and (c.transaction_error or expired(c, p.head, now, &next)):
            # with one of its records the whole transaction failed, and nothing more of it is sent
            give_up(c, p, c.transaction_error if c.transaction_error else <int16_t> LOST_TIME)
        if p.head != NULL:
            pick(c, p, now, &next)
        elif p.in_flight == 0:
            if p.bump and not c.set.transactional:          # a transaction's producer gets its epochs from the coordinator
                begin_epoch(c, p)
            if p.open == NULL:
                deactivate(c, p)
        p = following
    if c.worn_out and not numbered(c):                      # all epochs of this producer's id are used up
        c.worn_out = False
        c.producer_id = -1
        ask(c, WANT_PRODUCER_ID)
    return next


# ---- sending -------------------------------------------------------------------------------------------------------------------

cdef size_t small_bytes(Core *c, OutBatch *b) noexcept nogil:
    cdef size_t n = 64 + <size_t> c.client_id_n + <size_t> c.transactional_id_n
    while b != NULL:
        n += 32 + <size_t> c.topics[b.topic].name_n
        b = b.next
    return n


cdef bint build(Core *c, Peer *peer, OutBatch *batches, const uint8_t *ids, int16_t ids_n) noexcept nogil:
    """A Produce request of the picked batches, pushed into the link; False without memory, the batches among the peer's requests then
    too."""
    cdef bint flexible = peer.version >= FLEXIBLE_FROM
    cdef Request *r = <Request *> calloc(1, sizeof(Request))
    cdef Writer w
    cdef OutBatch *b
    cdef OutBatch *group
    cdef Topic *t
    cdef int32_t topics = 0, parts
    cdef uint8_t *from_
    cdef size_t total = 0
    cdef size_t room = small_bytes(c, batches)
    if r != NULL:
        r.small = <uint8_t *> malloc(room)
    if r == NULL or r.small == NULL:
        free(r)
        while batches != NULL:
            b = batches
            batches = b.next
            answered(c, b, NETWORK_EXCEPTION, -1, -1, clock_us(CLOCK_MONOTONIC))
        return False
    b = batches
    while b != NULL:
        topics += b.next == NULL or b.next.topic != b.topic
        b = b.next
    writer_init(&w, r.small, room)
    peer.correlation = (peer.correlation + 1) & 0x7FFFFFFF
    r.correlation = peer.correlation
    write_i32(&w, 0)                            # the length, below
    write_i16(&w, 0)
    write_i16(&w, peer.version)
    write_i32(&w, r.correlation)
    write_i16(&w, c.client_id_n)
    write_bytes(&w, c.client_id, c.client_id_n)
    wire_put_tags(&w, flexible)
    wire_put_string(&w, flexible, ids, ids_n)   # the transactional id
    write_i16(&w, c.set.acks)
    write_i32(&w, <int32_t> (c.set.request_us // 1000))
    wire_put_length(&w, flexible, topics)
    from_ = r.small
    b = batches
    while b != NULL:
        t = c.topics + b.topic
        wire_put_string(&w, flexible, t.name, t.name_n)
        parts = 0
        group = b
        while group != NULL and group.topic == b.topic:
            parts += 1
            group = group.next
        wire_put_length(&w, flexible, parts)
        while parts:
            parts -= 1
            write_i32(&w, b.number)
            wire_put_length(&w, flexible, <int64_t> b.used)
            if link_push(&peer.link, from_, <size_t> (w.p - from_)) < 0 or link_push(&peer.link, b.data, b.used) < 0:
                w.full = True
            total += <size_t> (w.p - from_) + b.used
            from_ = w.p
            wire_put_tags(&w, flexible)
            b = b.next
        wire_put_tags(&w, flexible)
    wire_put_tags(&w, flexible)
    total += <size_t> (w.p - from_)
    if link_push(&peer.link, from_, <size_t> (w.p - from_)) < 0:
        w.full = True
    put32(r.small, <uint32_t> (total - 4))
    r.first = batches
    r.sent_us = clock_us(CLOCK_MONOTONIC)
    r.end = peer.link.queued
    if peer.last == NULL:
        peer.first = r
    else:
        peer.last.next = r
    peer.last = r
    peer.in_flight += 1
    c.requests += 1
    c.bytes += total
    return not w.full


cdef bint send_picked(Core *c, int64_t now) noexcept nogil:
    """Seals and sends what was picked; with the lock held, which is let go of while batches are compressed. Whether anything was sent."""
    cdef bint any = False
    cdef int i
    cdef Peer *peer
    cdef OutBatch *batches
    cdef OutBatch *b
    cdef int16_t attributes = ATTR_TRANSACTIONAL if c.set.transactional else 0
    for i in range(c.peers_n):
        peer = c.peers[i]
        batches = peer.picked
        if batches == NULL:
            continue
        any = True
        pthread_mutex_unlock(&c.lock)
        b = batches
        while b != NULL:
            if not b.sealed:
                batch_seal(b, c.set.codec, c.set.level, attributes)
            elif b.attempts:
                batch_number(b)
            b = b.next
        lock(c)
        peer.picked = NULL
        peer.picked_bytes = 0
        if not build(c, peer, batches, <const uint8_t *> c.transactional_id, c.transactional_id_n if c.transactional_id != NULL else -1):
            lose(c, peer, now)
    return any


# ---- answers -------------------------------------------------------------------------------------------------------------------

cdef bint retriable(int16_t error) noexcept nogil:
    return error in (
        CORRUPT_MESSAGE, UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT, REPLICA_NOT_AVAILABLE,
        NETWORK_EXCEPTION, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND, CONCURRENT_TRANSACTIONS, KAFKA_STORAGE_ERROR,
        FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, THROTTLING_QUOTA_EXCEEDED,
    )


cdef bint about_leader(int16_t error) noexcept nogil:
    return error in (UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, REPLICA_NOT_AVAILABLE, KAFKA_STORAGE_ERROR,
                     FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH)


cdef bint worth_another(Core *c, Part *p, OutBatch *b, int16_t error) noexcept nogil:
    """Whether the batch is to be sent again. One that is not stored, as it lies behind a gap in the numbers, gets another number then."""
    if retriable(error):
        return True
    if not c.set.idempotent:
        return False
    if error == OUT_OF_ORDER_SEQUENCE_NUMBER:
        if p.in_flight == 0 and (p.head == NULL or p.head.serial > b.serial) and not p.bump:
            if c.set.transactional:
                return False
            p.bump = True                       # all before it is decided, so that it can't come any more
    elif error == UNKNOWN_PRODUCER_ID and not c.set.transactional:
        p.bump = True                           # the broker has forgotten all of this partition's batches
    else:
        return False
    if p.bump:
        b.sequence = -1
    return True


cdef void again(Core *c, Part *p, OutBatch *b, int64_t now) noexcept nogil:
    cdef int64_t wait = c.set.backoff_us << min(b.attempts, 20)
    b.attempts += 1
    b.retry_us = now + min(wait, c.set.backoff_max_us)
    c.retried += 1
    enqueue(p, b)


cdef void answered(Core *c, OutBatch *b, int16_t error, int64_t offset, int64_t append_ms, int64_t now) noexcept nogil:
    """A sent batch's fate, told by its broker, or NETWORK_EXCEPTION by the loss of the connection."""
    cdef Part *p = <Part *> b.part
    p.in_flight -= 1
    if error == 0 or error == DUPLICATE_SEQUENCE_NUMBER:
        # of an older epoch it proves nothing
        p.proven = p.proven or b.producer_epoch == <int16_t> (c.producer_epoch + p.epochs)
        complete(c, b, 0, offset if error == 0 else -1, append_ms)
        return
    if about_leader(error):
        p.leader = -1
        ask(c, WANT_METADATA)
    if c.stopping or now - b.made_us >= c.set.delivery_us:
        p.bump = p.bump or b.sequence >= 0
        complete(c, b, LOST_CLOSED if c.stopping else LOST_TIME if error == NETWORK_EXCEPTION else error, -1, -1)
    elif b.attempts < c.set.retries and worth_another(c, p, b, error):
        again(c, p, b, now)
    else:
        p.bump = p.bump or b.sequence >= 0
        complete(c, b, error, -1, -1)


cdef Request *first_request(Peer *peer) noexcept nogil:
    cdef Request *r = peer.first
    peer.first = r.next
    if peer.first == NULL:
        peer.last = NULL
    peer.in_flight -= 1
    return r


cdef void free_request(Request *r) noexcept nogil:
    free(r.small)
    free(r)


cdef void lose(Core *c, Peer *peer, int64_t now) noexcept nogil:
    """The connection is gone: what was sent on it is sent again."""
    cdef Request *r
    cdef OutBatch *b
    cdef OutBatch *following
    link_close(&peer.link)
    peer.state = PEER_ABSENT
    peer.again_us = now + c.set.backoff_us
    while peer.first != NULL:
        r = first_request(peer)
        b = r.first
        while b != NULL:
            following = b.next
            answered(c, b, NETWORK_EXCEPTION, -1, -1, now)
            b = following
        free_request(r)
    ask(c, WANT_METADATA)                       # its partitions may have moved


cdef OutBatch *take(Core *c, Request *r, const uint8_t *name, int32_t name_n, int32_t number) noexcept nogil:
    """The request's batch for a partition, taken out; NULL when there is none."""
    cdef OutBatch **at = &r.first
    cdef OutBatch *b
    while at[0] != NULL:
        b = at[0]
        if b.number == number and c.topics[b.topic].name_n == name_n and memcmp(c.topics[b.topic].name, name, name_n) == 0:
            at[0] = b.next
            return b
        at = &b.next
    return NULL


cdef bint take_answer(Core *c, Peer *peer, const uint8_t *frame, size_t n, int64_t now) noexcept nogil:
    """One ProduceResponse; False when it is none. What it leaves out counts as lost."""
    cdef bint flexible = peer.version >= FLEXIBLE_FROM
    cdef Request *r = peer.first
    cdef Reader in_
    cdef int64_t topics, parts, errors, offset, append_ms
    cdef int32_t name_n, number, ignored
    cdef int16_t error
    cdef const uint8_t *name
    cdef OutBatch *b
    reader_init(&in_, frame, n)
    if read_i32(&in_) != (r.correlation if r != NULL else -1) or r == NULL:
        return False
    wire_skip_tags(&in_, flexible)
    topics = wire_length(&in_, flexible)
    while topics > 0 and not in_.bad:
        topics -= 1
        name = wire_string(&in_, flexible, &name_n)
        parts = wire_length(&in_, flexible)
        while parts > 0 and not in_.bad:
            parts -= 1
            number = read_i32(&in_)
            error = read_i16(&in_)
            offset = read_i64(&in_)
            append_ms = read_i64(&in_)
            if peer.version >= 5:
                read_i64(&in_)                  # log start
            if peer.version >= 8:
                errors = wire_length(&in_, flexible)
                while errors > 0 and not in_.bad:
                    errors -= 1
                    read_i32(&in_)
                    wire_string(&in_, flexible, &ignored)
                    wire_skip_tags(&in_, flexible)
                wire_string(&in_, flexible, &ignored)
            wire_skip_tags(&in_, flexible)
            if in_.bad or name == NULL:
                return False
            b = take(c, r, name, name_n, number)
            if b == NULL:
                return False
            answered(c, b, error, offset, append_ms, now)
        wire_skip_tags(&in_, flexible)
    if in_.bad or r.first != NULL:
        return False
    free_request(first_request(peer))
    return True


cdef void finish_unanswered(Core *c, Peer *peer) noexcept nogil:
    """acks=0: what has left is done."""
    cdef Request *r
    cdef OutBatch *b
    while peer.first != NULL and peer.first.end <= peer.link.sent:
        r = first_request(peer)
        while r.first != NULL:
            b = r.first
            r.first = b.next
            (<Part *> b.part).in_flight -= 1
            complete(c, b, 0, -1, -1)
        free_request(r)


cdef void serve(Core *c, Peer *peer, unsigned int events, int64_t now) noexcept nogil:
    """Sends and receives what it can, without the lock but for the answers."""
    cdef const uint8_t *frame
    cdef size_t n
    cdef int error = 0
    if peer.state != PEER_UP:
        return
    if events & EPOLLOUT or events == 0:
        error = link_flush(&peer.link)
    if error == 0 and events & ~<unsigned int> EPOLLOUT:
        error = link_receive(&peer.link)
    lock(c)
    while link_next(&peer.link, &frame, &n):
        if not take_answer(c, peer, frame, n, now):
            error = -1
            break
    if c.set.acks == 0 and peer.state == PEER_UP:
        finish_unanswered(c, peer)
    if error < 0 or (peer.first != NULL and now - max(peer.first.sent_us, peer.link.heard_us) > c.set.request_us):
        lose(c, peer, now)
    pthread_mutex_unlock(&c.lock)


cdef void adopt(Core *c, int64_t now) noexcept nogil:
    """Takes over the connections that the control thread has made."""
    cdef int i
    cdef Peer *peer
    for i in range(c.peers_n):
        peer = c.peers[i]
        if peer.state == PEER_HANDED:
            peer.state = PEER_UP
            peer.first = peer.last = NULL
            peer.in_flight = 0
            if link_open(&peer.link, peer.fd, peer.node, c.epoll, FRAME_MAX) < 0:
                lose(c, peer, now)
            peer.fd = -1


cdef void *sender_run(Core *c) noexcept nogil:
    cdef void *ready[64]
    cdef unsigned int events[64]
    cdef int i, n
    cdef int64_t now, next
    cdef bint any
    lock(c)
    while not c.stopping:
        now = clock_us(CLOCK_MONOTONIC)
        adopt(c, now)
        next = drain(c, now)
        any = send_picked(c, now)
        c.sleeping = not any
        pthread_mutex_unlock(&c.lock)
        if any:
            for i in range(c.peers_n):
                serve(c, c.peers[i], 0, now)
        n = epoll_ready(c.epoll, ready, events, 64, 0 if any else <int> (max(<int64_t> 0, next - now + 999) // 1000))
        c.sleeping = False
        now = clock_us(CLOCK_MONOTONIC)
        for i in range(max(n, 0)):
            if ready[i] == NULL:
                eventfd_clear(c.wake_fd)
            else:
                serve(c, <Peer *> ready[i], events[i], now)
        if n == 0:
            for i in range(c.peers_n):
                serve(c, c.peers[i], 0, now)
        lock(c)
    now = clock_us(CLOCK_MONOTONIC)
    for i in range(c.peers_n):
        if c.peers[i].state == PEER_UP:
            lose(c, c.peers[i], now)
        elif c.peers[i].state == PEER_HANDED:
            close(c.peers[i].fd)
            c.peers[i].fd = -1
    core_purge(c, LOST_CLOSED)
    pthread_cond_broadcast(&c.control)
    pthread_cond_broadcast(&c.room)
    pthread_cond_broadcast(&c.done)
    pthread_mutex_unlock(&c.lock)
    return NULL
