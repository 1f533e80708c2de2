"""See clientproduce.pxd: gathering records into batches, and completing these. Sending is clientsend's, Python's end clientproducer's."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from fastlog.native.batch cimport BATCH_HEADER
from fastlog.native.clientbatch cimport BATCH_DONE, BATCH_WAITING, RECORD_OVERHEAD, OutBatch, batch_add, murmur2
from fastlog.native.clientcolumn cimport COLUMN_NULL, Column, column_get
from fastlog.native.clientlink cimport CLOCK_MONOTONIC, EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, clock_us, close, \
    cond_init, cond_wait_until, epoll_create1, epoll_set, eventfd, eventfd_set
from fastlog.native.threads cimport pthread_cond_broadcast, pthread_cond_destroy, pthread_mutex_destroy, \
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock

cdef extern from "<zlib.h>" nogil:
    unsigned long crc32(unsigned long crc, const uint8_t *p, unsigned int n)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from *:
    """
    #define fl_load(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    """
    int load_int "fl_load"(const int *p) noexcept nogil

cdef enum:
    FIRST_BYTES = 4096              # of a batch's buffer; it grows fourfold
    STICKY_BYTES = 16384            # a partition's share of records without a key before another is chosen (KIP-794)


cdef Core *core_make(const Settings *settings, const char *client_id, int16_t client_id_n, const char *transactional_id,
                     int16_t transactional_id_n) noexcept nogil:
    cdef Core *c = <Core *> calloc(1, sizeof(Core))
    if c == NULL:
        return NULL
    c.set = settings[0]
    c.client_id = <char *> malloc(client_id_n + 1)
    c.epoll = epoll_create1(EPOLL_CLOEXEC)
    c.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    c.done_fd = -1
    c.producer_id = -1
    c.pool_size = settings.batch_size + BATCH_HEADER
    c.random = <uint64_t> clock_us(CLOCK_MONOTONIC) * <uint64_t> 0x9E3779B97F4A7C15 | 1
    pthread_mutex_init(&c.lock, NULL)
    cond_init(&c.room)
    cond_init(&c.done)
    cond_init(&c.control)
    if c.client_id == NULL or c.epoll < 0 or c.wake_fd < 0 or epoll_set(c.epoll, EPOLL_CTL_ADD, c.wake_fd, EPOLLIN, NULL) < 0:
        core_free(c)
        return NULL
    memcpy(c.client_id, client_id, client_id_n)
    if transactional_id != NULL:
        c.transactional_id = <char *> malloc(transactional_id_n + 1)
        if c.transactional_id == NULL:
            core_free(c)
            return NULL
        memcpy(c.transactional_id, transactional_id, transactional_id_n)
        c.transactional_id_n = transactional_id_n
    c.client_id_n = client_id_n
    return c


cdef void core_free(Core *c) noexcept nogil:
    cdef int i, j
    cdef uint8_t *buffer
    for i in range(c.topics_n):
        for j in range(c.topics[i].n):
            free(c.topics[i].parts[j])
        free(c.topics[i].parts)
        free(c.topics[i].name)
    free(c.topics)
    for i in range(c.peers_n):
        free(c.peers[i])
    free(c.peers)
    while c.pool != NULL:
        buffer = c.pool
        c.pool = (<uint8_t **> buffer)[0]
        free(buffer)
    if c.epoll >= 0:
        close(c.epoll)
    if c.wake_fd >= 0:
        close(c.wake_fd)
    pthread_mutex_destroy(&c.lock)
    pthread_cond_destroy(&c.room)
    pthread_cond_destroy(&c.done)
    pthread_cond_destroy(&c.control)
    free(c.client_id)
    free(c.transactional_id)
    free(c)


cdef void core_wake(Core *c) noexcept nogil:
    if c.sleeping:
        c.sleeping = False
        eventfd_set(c.wake_fd)


cdef int core_set_topic(Core *c, int32_t handle, const char *name, int16_t name_n, const int32_t *leaders, int32_t n) noexcept nogil:
    """With the lock held. Makes the topic (`handle` -1), or gives it its leaders and new partitions. The handle, or -1 without memory."""
    cdef Topic *grown
    cdef Topic *t
    cdef Part **parts
    cdef int32_t i
    if handle < 0:
        grown = <Topic *> realloc(c.topics, (c.topics_n + 1) * sizeof(Topic))
        if grown == NULL:
            return -1
        c.topics = grown
        t = c.topics + c.topics_n
        memset(t, 0, sizeof(Topic))
        t.sticky = -1
        t.name = <char *> malloc(name_n + 1)
        if t.name == NULL:
            return -1
        memcpy(t.name, name, name_n)
        t.name_n = name_n
        handle = c.topics_n
        c.topics_n += 1
    t = c.topics + handle
    if n > t.n:
        parts = <Part **> realloc(t.parts, n * sizeof(void *))
        if parts == NULL:
            return -1
        t.parts = parts
        while t.n < n:
            parts[t.n] = <Part *> calloc(1, sizeof(Part))
            if parts[t.n] == NULL:
                return -1
            parts[t.n].topic = handle
            parts[t.n].number = t.n
            parts[t.n].leader = -1
            t.n += 1
    for i in range(n):
        t.parts[i].leader = leaders[i]
    core_wake(c)
    return handle


# ---- batches -------------------------------------------------------------------------------------------------------------------

cdef uint8_t *take_buffer(Core *c, size_t n) noexcept nogil:
    cdef uint8_t *buffer
    if n == c.pool_size and c.pool != NULL:
        buffer = c.pool
        c.pool = (<uint8_t **> buffer)[0]
        c.pooled -= n
        return buffer
    return <uint8_t *> malloc(n)


cdef void give_buffer(Core *c, uint8_t *buffer, size_t n) noexcept nogil:
    """Buffers of the usual size are kept: touching new memory costs more than filling it."""
    if n == c.pool_size and c.pooled + c.used + n <= c.set.buffer_memory:
        (<uint8_t **> buffer)[0] = c.pool
        c.pool = buffer
        c.pooled += n
    else:
        free(buffer)


cdef void batch_unref(Core *c, OutBatch *b) noexcept nogil:
    b.refs -= 1
    if b.refs == 0:
        free(b.data)
        free(b)


cdef void complete(Core *c, OutBatch *b, int16_t error, int64_t offset, int64_t append_ms) noexcept nogil:
    b.state = BATCH_DONE
    b.error = error
    b.offset = offset
    b.append_ms = append_ms
    b.part = NULL
    c.used -= b.charged
    give_buffer(c, b.data, b.capacity)
    b.data = NULL
    c.incomplete -= 1
    if error:
        c.failed += <uint64_t> b.count
        if c.set.transactional and not c.transaction_error:
            c.transaction_error = error
    else:
        c.acked += <uint64_t> b.count
        c.payload_acked += <uint64_t> b.payload
    if b.watched:
        b.done_next = NULL
        if c.done_last == NULL:
            c.done_first = b
        else:
            c.done_last.done_next = b
        c.done_last = b
        b.refs += 1
    if c.done_fd >= 0 and (b.watched or c.flushing or c.short_of_room):     # an event loop waits for a batch, for all, or for room
        eventfd_set(c.done_fd)
    pthread_cond_broadcast(&c.done)
    pthread_cond_broadcast(&c.room)
    batch_unref(c, b)


cdef void enqueue(Part *p, OutBatch *b) noexcept nogil:
    """In the order in which batches were begun: one that comes back goes before those behind it."""
    cdef OutBatch *at = p.head
    b.state = BATCH_WAITING
    p.queued += 1
    if p.tail == NULL or p.tail.serial < b.serial:
        b.next = NULL
        if p.tail == NULL:
            p.head = b
        else:
            p.tail.next = b
        p.tail = b
        return
    if p.head.serial > b.serial:
        b.next = p.head
        p.head = b
        return
    while at.next.serial < b.serial:
        at = at.next
    b.next = at.next
    at.next = b


cdef OutBatch *dequeue(Part *p) noexcept nogil:
    cdef OutBatch *b = p.head
    p.head = b.next
    if p.head == NULL:
        p.tail = NULL
    b.next = NULL
    p.queued -= 1
    return b


cdef void close_open(Part *p) noexcept nogil:
    cdef OutBatch *b = p.open
    p.open = NULL
    enqueue(p, b)


cdef void activate(Core *c, Part *p) noexcept nogil:
    if p.active:
        return
    p.active = True
    p.before = NULL
    p.after = c.active
    if c.active != NULL:
        c.active.before = p
    c.active = p


cdef void deactivate(Core *c, Part *p) noexcept nogil:
    p.active = False
    if p.before != NULL:
        p.before.after = p.after
    else:
        c.active = p.after
    if p.after != NULL:
        p.after.before = p.before
    p.before = p.after = NULL


cdef void core_purge(Core *c, int16_t error) noexcept nogil:
    cdef Part *p = c.active
    if c.set.transactional and not c.transaction_error:
        c.transaction_error = error
    while p != NULL:
        if p.open != NULL:
            close_open(p)
        while p.head != NULL:
            p.bump = p.bump or p.head.sequence >= 0
            complete(c, dequeue(p), error, -1, -1)
        p = p.after


cdef int more_room(Core *c, OutBatch *b, size_t wanted) noexcept nogil:
    """Grows an open batch to at least `wanted` bytes. 0, 1 when buffer_memory is used up, -1 without memory."""
    cdef size_t size = b.capacity
    cdef uint8_t *buffer
    while size < wanted:
        size *= 4
    if size > c.pool_size and wanted <= c.pool_size:
        size = c.pool_size
    if size > c.pool_size:
        size = wanted
    if c.used + size - b.capacity > c.set.buffer_memory and c.incomplete > 1:
        return 1
    buffer = take_buffer(c, size)
    if buffer == NULL:
        return -1
    memcpy(buffer, b.data, b.used)
    c.used += size - b.charged
    b.charged = size
    free(b.data)
    b.data = buffer
    b.capacity = size
    return 0


cdef int begin_batch(Core *c, Part *p, size_t record) noexcept nogil:
    """Gives the partition an open batch with room for a record. 0, 1 when buffer_memory is used up, -1 without memory."""
    cdef OutBatch *b
    cdef size_t size = max(<size_t> FIRST_BYTES, p.hint)
    while size < record + BATCH_HEADER:
        size *= 4
    if size > c.pool_size:
        size = max(c.pool_size, record + BATCH_HEADER)
    # one that is alone always gets its room: a record is never larger than max_request_size
    if c.used + size > c.set.buffer_memory and c.incomplete:
        return 1
    b = <OutBatch *> calloc(1, sizeof(OutBatch))
    if b == NULL:
        return -1
    b.data = take_buffer(c, size)
    if b.data == NULL:
        free(b)
        return -1
    b.refs = 1
    b.capacity = b.charged = size
    b.used = BATCH_HEADER
    b.part = p
    b.topic = p.topic
    b.number = p.number
    b.made_us = clock_us(CLOCK_MONOTONIC)
    b.sequence = -1
    b.producer_id = -1
    b.offset = -1
    b.serial = c.serial
    c.serial += 1
    c.used += size
    c.incomplete += 1
    p.open = b
    activate(c, p)
    core_wake(c)
    return 0


# ---- appending -----------------------------------------------------------------------------------------------------------------

cdef inline uint32_t draw(Core *c) noexcept nogil:
    """xorshift64"""
    c.random ^= c.random << 13
    c.random ^= c.random >> 7
    c.random ^= c.random << 17
    return <uint32_t> (c.random >> 32)


cdef int32_t choose(Core *c, Topic *t) noexcept nogil:
    """A partition for records without a key: one whose leader is known, likelier the less it has waiting (KIP-794)."""
    cdef int32_t i, most = 0, known = 0
    cdef int64_t total = 0, at
    for i in range(t.n):
        if t.parts[i].leader >= 0:
            known += 1
            most = max(most, t.parts[i].queued)
    if known == 0:
        return <int32_t> (draw(c) % <uint32_t> t.n)
    for i in range(t.n):
        if t.parts[i].leader >= 0:
            total += most + 1 - t.parts[i].queued
    at = <int64_t> (draw(c) % <uint64_t> total)
    for i in range(t.n):
        if t.parts[i].leader >= 0:
            at -= most + 1 - t.parts[i].queued
            if at < 0:
                return i
    return 0


cdef inline Part *part_of(Core *c, Topic *t, const uint8_t *key, int64_t key_n, int32_t given) noexcept nogil:
    if given >= 0:
        return t.parts[given] if given < t.n else NULL
    if key_n >= 0 and c.set.partitioner == 0:
        return t.parts[(murmur2(key, <size_t> key_n) & 0x7FFFFFFF) % <uint32_t> t.n]
    if key_n > 0:
        return t.parts[<uint32_t> crc32(0, key, <unsigned int> key_n) % <uint32_t> t.n]
    if t.sticky < 0 or (t.sticky_bytes >= STICKY_BYTES and t.parts[t.sticky].open == NULL):
        t.sticky = choose(c, t)
        t.sticky_bytes = 0
    return t.parts[t.sticky]


cdef inline int note(Segments *out, OutBatch *b) noexcept nogil:
    """The batch's next record is the call's next record."""
    cdef Segment *last
    if out.n:
        last = out.items + out.n - 1
        if last.batch == b and last.index + last.n == b.count:
            last.n += 1
            return 0
    if out.n == out.capacity:
        last = <Segment *> realloc(out.items, (out.capacity * 2 + 4) * sizeof(Segment))
        if last == NULL:
            return -1
        out.items = last
        out.capacity = out.capacity * 2 + 4
    last = out.items + out.n
    last.batch = b
    last.index = b.count
    last.n = 1
    b.refs += 1
    out.n += 1
    return 0


cdef int fit(Core *c, Part *p, size_t record) noexcept nogil:
    """Sees to it that the partition's open batch has room. As begin_batch."""
    cdef OutBatch *b = p.open
    if b == NULL:
        return begin_batch(c, p, record)
    if b.used + record <= b.capacity:
        return 0
    if b.used + record <= c.pool_size:
        return more_room(c, b, b.used + record)
    p.hint = b.capacity
    close_open(p)
    core_wake(c)
    return begin_batch(c, p, record)


cdef Appended core_append(Core *c, int32_t topic, const Column *values, const Column *keys, const Column *headers, const int64_t *times,
                          const int32_t *partitions, int32_t partition, int64_t now_ms, int64_t *at, int64_t n, Segments *out,
                          int64_t wait_us) noexcept nogil:
    cdef Topic *t
    cdef Part *p
    cdef OutBatch *last = NULL
    cdef int64_t i = at[0], key_n = -1, value_n, headers_n = 0
    cdef const uint8_t *key = NULL
    cdef const uint8_t *value
    cdef const uint8_t *blob = NULL
    cdef size_t record
    cdef int status = 0
    cdef int _
    cdef Appended result = APPEND_DONE
    pthread_mutex_lock(&c.lock)
    while i < n:
        if c.stopping:
            result = APPEND_CLOSED
            break
        t = c.topics + topic
        value_n = column_get(values, i, &value)
        if keys.kind != COLUMN_NULL:
            key_n = column_get(keys, i, &key)
        if headers.kind != COLUMN_NULL:
            headers_n = column_get(headers, i, &blob)
        record = <size_t> (max(key_n, <int64_t> 0) + max(value_n, <int64_t> 0) + max(headers_n, <int64_t> 0)) + RECORD_OVERHEAD
        p = part_of(c, t, key, key_n, partitions[i] if partitions != NULL else partition)
        if p == NULL:
            result = APPEND_PARTITION
            break
        status = fit(c, p, record)
        if status < 0:
            result = APPEND_MEMORY
            break
        if status > 0:                                      # buffer_memory is used up: all that waits is sent now
            c.short_of_room += 1
            core_wake(c)
            result = APPEND_DONE if cond_wait_until(&c.room, &c.lock, clock_us(CLOCK_MONOTONIC) + wait_us) else APPEND_AGAIN
            c.short_of_room -= 1
            if result == APPEND_AGAIN:
                break
            continue
        if p.open != last:
            if last != NULL and load_int(&c.waiting):       # a batch was filled: the network thread goes first
                pthread_mutex_unlock(&c.lock)
                for _ in range(64):
                    if not load_int(&c.waiting):
                        break
                    sched_yield()
                pthread_mutex_lock(&c.lock)
                last = NULL
                continue
            last = p.open
        if note(out, p.open) < 0:
            result = APPEND_MEMORY
            break
        batch_add(p.open, times[i] if times != NULL else now_ms, key, key_n, value, value_n, blob, headers_n)
        if t.sticky == p.number:
            t.sticky_bytes += record
        i += 1
    c.records += <uint64_t> (i - at[0])
    at[0] = i
    pthread_mutex_unlock(&c.lock)
    return result
