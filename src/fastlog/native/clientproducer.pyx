"""The producer's core as Python has it: `ProducerCore`. What its calls return is in clientdelivery.

`fastlog.client.producer` derives from ProducerCore and gives it what needs Python: topics that are not known yet (`_topic_handle`), errors
(`_failure`), and the type of results (`_record_metadata`).
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.number cimport PyNumber_Index
from libc.stdint cimport INT32_MAX, int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastlog.native.clientbatch cimport BATCH_DONE, OutBatch, murmur2
from fastlog.native.clientcolumn cimport COLUMN_NULL, COLUMN_SAME, Column, Integers, Values, column_get, integers_of, values_of
from fastlog.native.clientdelivery cimport Deliveries, Delivery, Shared, deadline_us
from fastlog.native.clientlink cimport CLOCK_MONOTONIC, CLOCK_REALTIME, EFD_CLOEXEC, EFD_NONBLOCK, SLICE_US, clock_us, close, \
    cond_wait_until, eventfd, eventfd_clear, forks
from fastlog.native.clientproduce cimport APPEND_AGAIN, APPEND_CLOSED, APPEND_MEMORY, APPEND_PARTITION, LOST_CLOSED, PEER_ABSENT, \
    PEER_CONNECTING, PEER_HANDED, PEER_WANTED, WANT_PRODUCER_ID, Appended, Core, Part, Peer, Segments, Settings, batch_unref, \
    core_append, core_make, core_purge, core_set_topic, core_wake
from fastlog.native.clientsend cimport core_start, core_stop, peer_of
from fastlog.native.threads cimport pthread_mutex_lock, pthread_mutex_unlock

from fastlog.native.clientheaders import encode_headers

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

cdef extern from "<zlib.h>" nogil:
    unsigned long crc32(unsigned long crc, const uint8_t *p, unsigned int n)


@cython.final
cdef class Rows:
    """The columns of a call, on their way into batches."""
    cdef Values values
    cdef Values keys
    cdef Values headers
    cdef Integers times
    cdef Integers numbers
    cdef int32_t handle
    cdef int32_t partition              # of all rows, where `numbers` is None
    cdef readonly int64_t at            # how many are queued
    cdef int64_t n
    cdef readonly Deliveries deliveries


def partition_for(key: bytes, partitions: int, partitioner: int = 0) -> int:
    """The partition that a key goes to; partitioner 0: Java's, 1: librdkafka's consistent_random."""
    cdef const uint8_t *p = <const uint8_t *> PyBytes_AS_STRING(key)
    cdef size_t n = <size_t> PyBytes_GET_SIZE(key)
    if partitioner == 1:
        return <uint32_t> crc32(0, p, <unsigned int> n) % <uint32_t> partitions
    return (murmur2(p, n) & 0x7FFFFFFF) % <uint32_t> partitions


cdef class ProducerCore:
    cdef Shared shared
    cdef Core *c
    cdef dict _handles                  # topic -> handle
    cdef readonly list _names           # handle -> topic
    cdef dict _watches                  # batch's address -> [(Delivery, call), ...]
    cdef object _key_serializer
    cdef object _value_serializer
    cdef object _partition_of           # callable (key, partitions) -> partition, or None
    cdef readonly object _record_metadata
    cdef int64_t _max_block_us
    cdef int64_t _record_max
    cdef bint _closed
    cdef bint _needs_transaction        # and none is open
    cdef bint _driven                   # by an event loop: nothing here waits

    def _start(self, settings: dict, client_id: bytes, transactional_id: bytes | None, record_metadata) -> None:
        """Makes the core and starts its thread. `settings`: the fields of Settings."""
        cdef Settings made
        memset(&made, 0, sizeof(Settings))
        made.codec = settings["codec"]
        made.level = settings["level"]
        made.acks = settings["acks"]
        made.version = 11
        made.linger_us = settings["linger_us"]
        made.batch_size = settings["batch_size"]
        made.max_request_size = settings["max_request_size"]
        made.buffer_memory = settings["buffer_memory"]
        made.max_in_flight = settings["max_in_flight"]
        made.delivery_us = settings["delivery_us"]
        made.request_us = settings["request_us"]
        made.backoff_us = settings["backoff_us"]
        made.backoff_max_us = settings["backoff_max_us"]
        made.retries = settings["retries"]
        made.idempotent = settings["idempotent"]
        made.transactional = transactional_id is not None
        made.partitioner = settings["partitioner"]
        self._max_block_us = settings["max_block_us"]
        self._record_max = settings["max_request_size"]
        self._key_serializer = settings["key_serializer"]
        self._value_serializer = settings["value_serializer"]
        self._partition_of = settings["partition_of"]
        self._record_metadata = record_metadata
        self._handles = {}
        self._names = []
        self._watches = {}
        self._closed = False
        self._needs_transaction = made.transactional
        self.shared = Shared()
        self.shared.born = forks
        self.shared.c = core_make(&made, PyBytes_AS_STRING(client_id), <int16_t> len(client_id),
                                  NULL if transactional_id is None else PyBytes_AS_STRING(transactional_id),
                                  <int16_t> (0 if transactional_id is None else len(transactional_id)))
        if self.shared.c == NULL:
            raise MemoryError
        self.c = self.shared.c
        if core_start(self.c) < 0:
            raise OSError("no thread can be started")

    # ---- what the subclass gives ----

    def _topic_handle(self, topic):
        raise NotImplementedError

    def _failure(self, code, topic, partition):
        raise NotImplementedError

    def _refused(self, why):
        raise NotImplementedError

    # ---- sending ----

    cdef inline int32_t handle_of(self, topic) except -1:
        if self.shared.born != forks or self._closed:
            self._refused("forked" if self.shared.born != forks else "closed")
        if self._needs_transaction:
            self._refused("transaction")
        found = self._handles.get(topic)
        if found is None:
            found = self._topic_handle(topic)
        return found

    cdef bint append(self, int32_t handle, Column *values, Column *keys, Column *headers, const int64_t *times, const int32_t *partitions,
                     int32_t partition, int64_t *at, int64_t n, Segments *out) except False:
        """Appends rows at[0]..n, waiting for room where there is none; an event loop's producer does not wait: BlockingIOError.
        The interpreter's lock is held for one row."""
        cdef int64_t now_ms = clock_us(CLOCK_REALTIME) // 1000
        cdef int64_t until = -1
        cdef Appended status = APPEND_AGAIN
        if values.n == 1 and (self._driven or self.c.used + 4096 < self.c.set.buffer_memory):
            status = core_append(self.c, handle, values, keys, headers, times, partitions, partition, now_ms, at, n, out, 0)
        elif self._driven:
            with nogil:
                status = core_append(self.c, handle, values, keys, headers, times, partitions, partition, now_ms, at, n, out, 0)
        while status == APPEND_AGAIN:
            if self._driven:
                raise BlockingIOError
            with nogil:
                status = core_append(self.c, handle, values, keys, headers, times, partitions, partition, now_ms, at, n, out, SLICE_US)
            if status == APPEND_AGAIN:
                PyErr_CheckSignals()
                if until < 0:
                    until = clock_us(CLOCK_MONOTONIC) + self._max_block_us
                elif clock_us(CLOCK_MONOTONIC) > until:
                    self._refused(f"full {at[0]}")
        if status == APPEND_CLOSED:
            self._refused("closed")
        elif status == APPEND_MEMORY:
            raise MemoryError
        elif status == APPEND_PARTITION:
            self._refused(f"partition {partitions[at[0]] if partitions != NULL else partition}")
        return True

    def send(self, topic, value=None, key=None, *, headers=None, partition=None, timestamp=None) -> Delivery:
        """Queues one record and returns what becomes of it.

        value, key: bytes or None, or what the producer's serializers take. headers: [(str, bytes or None), ...] or a dict. partition: a
        number, or None for the partitioner's choice. timestamp: milliseconds since the epoch, or None for now.
        Waits while buffer_memory is used up, and for the metadata of a topic that is new, at most max_block_ms in all.
        Raises TypeError, ConfigError (there is no such partition), MessageTooLargeError, UnknownTopicOrPartitionError,
        UnreachableError, BufferFullError, ClosedError.
        """
        cdef Column values, keys, blobs
        cdef Segments found
        cdef int64_t when = 0
        cdef int64_t at = 0
        cdef int32_t number = -1
        cdef int overflow = 0
        cdef Delivery made
        cdef int32_t handle = self.handle_of(topic)
        memset(&values, 0, sizeof(Column))
        memset(&keys, 0, sizeof(Column))
        memset(&blobs, 0, sizeof(Column))
        memset(&found, 0, sizeof(Segments))
        if self._value_serializer is not None and value is not None:
            value = self._value_serializer(value)
        if self._key_serializer is not None and key is not None:
            key = self._key_serializer(key)
        if value is not None:
            if not PyBytes_Check(value):
                value = as_bytes(value, "value")
            values.kind = COLUMN_SAME
            values.base = <const uint8_t *> PyBytes_AS_STRING(value)
            values.width = PyBytes_GET_SIZE(value)
        values.n = 1
        if key is not None:
            if not PyBytes_Check(key):
                key = as_bytes(key, "key")
            keys.kind = COLUMN_SAME
            keys.base = <const uint8_t *> PyBytes_AS_STRING(key)
            keys.width = PyBytes_GET_SIZE(key)
        if headers:
            headers = encode_headers(headers)
            blobs.kind = COLUMN_SAME
            blobs.base = <const uint8_t *> PyBytes_AS_STRING(headers)
            blobs.width = PyBytes_GET_SIZE(headers)
        if values.width + keys.width + blobs.width + 100 > self._record_max:
            self._refused(f"large {values.width + keys.width + blobs.width}")
        if timestamp is not None:
            when = PyLong_AsLongLongAndOverflow(PyNumber_Index(timestamp), &overflow)
            if overflow or when < 0:
                raise ValueError(f"timestamp {timestamp}: expected milliseconds since the epoch")
        if partition is not None:
            number = self.partition_of(partition)
        elif self._partition_of is not None:
            number = self._partition_of(key, self.partitions_known(handle))
        try:
            self.append(handle, &values, &keys, &blobs, &when if timestamp is not None else NULL, NULL, number, &at, 1, &found)
        except BaseException:
            self.drop(&found)
            raise
        made = Delivery.__new__(Delivery)
        made.shared = self.shared
        made.producer = self
        made.batch = found.items[0].batch
        made.index = found.items[0].index
        free(found.items)
        return made

    cdef void drop(self, Segments *found):
        cdef int64_t i
        pthread_mutex_lock(&self.c.lock)
        for i in range(found.n):
            batch_unref(self.c, found.items[i].batch)
        pthread_mutex_unlock(&self.c.lock)
        free(found.items)
        found.items = NULL

    def _send_columns(self, topic, values, keys, headers, timestamps, partitions, Deliveries into = None) -> Deliveries:
        """See Producer.send_batch; `headers` is None or a column of encoded headers; `into`: of an earlier part of the same call."""
        cdef Rows rows = self._rows(topic, values, keys, headers, timestamps, partitions, into)
        self._push(rows, rows.n)
        return rows.deliveries

    def _push(self, Rows rows, int64_t most) -> bool:
        """Appends up to `most` rows; whether there are more. An event loop's producer: BlockingIOError when there is no room for now."""
        if self._closed:
            self._refused("closed")
        if rows.at < rows.n:
            self.append(rows.handle, &rows.values.c, &rows.keys.c, &rows.headers.c, NULL if rows.times is None else rows.times.p64,
                        NULL if rows.numbers is None else rows.numbers.p32, rows.partition, &rows.at, min(rows.n, rows.at + most),
                        &rows.deliveries.found)
        return rows.at < rows.n

    def _rows(self, topic, values, keys, headers, timestamps, partitions, Deliveries into = None) -> Rows:
        """The columns of a call, looked through; nothing is queued yet."""
        cdef int32_t handle = self.handle_of(topic)
        cdef Values value_column, key_column, header_column
        cdef Integers times, numbers
        cdef int32_t partition = -1
        cdef int64_t n, i, size, largest = 0
        cdef const uint8_t *p
        cdef Deliveries made
        cdef Rows rows
        if self._value_serializer is not None and isinstance(values, (list, tuple)):
            serialize = self._value_serializer
            values = [v if v is None else serialize(v) for v in values]
        if self._key_serializer is not None and isinstance(keys, (list, tuple)):
            serialize = self._key_serializer
            keys = [k if k is None else serialize(k) for k in keys]
        if values is None:
            if keys is None or isinstance(keys, bytes):
                raise TypeError("values or keys: one of them must be a column")
            key_column = values_of(keys, -1)
            value_column = values_of(None, key_column.c.n)
        else:
            value_column = values_of(values, -1)
            key_column = values_of(keys, value_column.c.n)
        n = value_column.c.n
        header_column = values_of(headers, n)
        times = None
        if isinstance(timestamps, int):
            import array

            times = integers_of(array.array("q", [timestamps]) * n, n, True)
        else:
            times = integers_of(timestamps, n, True)
        if isinstance(partitions, int):
            partition = self.partition_of(partitions)
            numbers = None
        else:
            if partitions is None and self._partition_of is not None:
                total = self.partitions_known(handle)
                choose = self._partition_of
                partitions = [choose(k, total) for k in key_column.to_list()]
            numbers = integers_of(partitions, n, False)
            if numbers is not None:
                for i in range(n):
                    if numbers.p32[i] < 0:
                        self._refused(f"partition {numbers.p32[i]}")
        with nogil:
            for i in range(n):
                size = max(<int64_t> 0, column_get(&value_column.c, i, &p)) + 100
                if key_column.c.kind != COLUMN_NULL:
                    size += max(<int64_t> 0, column_get(&key_column.c, i, &p))
                if header_column.c.kind != COLUMN_NULL:
                    size += max(<int64_t> 0, column_get(&header_column.c, i, &p))
                largest = max(largest, size)
        if largest > self._record_max:
            self._refused(f"large {largest - 100}")
        made = into
        if made is None:
            made = Deliveries.__new__(Deliveries)
            made.shared = self.shared
            made.producer = self
        made.count += n
        rows = Rows.__new__(Rows)
        rows.values = value_column
        rows.keys = key_column
        rows.headers = header_column
        rows.times = times
        rows.numbers = numbers
        rows.handle = handle
        rows.partition = partition
        rows.at = 0
        rows.n = n
        rows.deliveries = made
        return rows

    cdef int32_t partition_of(self, given) except -1:
        """A partition's number as the caller gave it; whether there is one by that number is seen later."""
        cdef int overflow = 0
        cdef long long number = PyLong_AsLongLongAndOverflow(PyNumber_Index(given), &overflow)
        if overflow or not 0 <= number <= INT32_MAX:
            self._refused(f"partition {given}")
        return <int32_t> number

    cdef int32_t partitions_known(self, int32_t handle):
        cdef int32_t n
        pthread_mutex_lock(&self.c.lock)
        n = self.c.topics[handle].n
        pthread_mutex_unlock(&self.c.lock)
        return n

    # ---- waiting ----

    def _flush(self, timeout: float | None) -> int:
        """Sends all that waits and waits for the answers. Returns how many batches are left when the time is over."""
        cdef int64_t until = deadline_us(timeout)
        cdef int64_t now
        if self.shared.born != forks:
            self._refused("forked")
        pthread_mutex_lock(&self.c.lock)
        self.c.flushing += 1
        core_wake(self.c)
        pthread_mutex_unlock(&self.c.lock)
        try:
            while self.c.incomplete:
                now = clock_us(CLOCK_MONOTONIC)
                if until >= 0 and now >= until:
                    break
                with nogil:
                    pthread_mutex_lock(&self.c.lock)
                    if self.c.incomplete:
                        cond_wait_until(&self.c.done, &self.c.lock, min(until, now + SLICE_US) if until >= 0 else now + SLICE_US)
                    pthread_mutex_unlock(&self.c.lock)
                PyErr_CheckSignals()
        finally:
            pthread_mutex_lock(&self.c.lock)
            self.c.flushing -= 1
            pthread_mutex_unlock(&self.c.lock)
        return self.c.incomplete

    def _rush(self, on: bool) -> None:
        """While on, nothing lingers: what an event loop does instead of `_flush`."""
        pthread_mutex_lock(&self.c.lock)
        self.c.flushing += 1 if on else -1
        core_wake(self.c)
        pthread_mutex_unlock(&self.c.lock)

    def _drive(self) -> None:
        """An event loop has it from now on: sending raises BlockingIOError where it would wait for room."""
        self._driven = True

    def _want_room(self, on: bool) -> None:
        """While on, all that waits is sent, and the eventfd tells of room."""
        pthread_mutex_lock(&self.c.lock)
        self.c.short_of_room += 1 if on else -1
        core_wake(self.c)
        pthread_mutex_unlock(&self.c.lock)

    # ---- callbacks ----

    def _watch(self, Delivery delivery, call) -> None:
        cdef bint done
        cdef size_t at = <size_t> delivery.batch
        calls = self._watches.get(at)
        if calls is None:
            calls = self._watches[at] = []
        calls.append((delivery, call))
        pthread_mutex_lock(&self.c.lock)
        done = delivery.batch.state == BATCH_DONE and not delivery.batch.watched
        if not done:
            delivery.batch.watched = True
        pthread_mutex_unlock(&self.c.lock)
        if done:
            for one, each in self._watches.pop(at):
                each(one)
        else:
            self._watching()

    def _watching(self) -> None:
        """Somebody waits for a callback."""

    def _take_done(self) -> list:
        """[(Delivery, call), ...] of the batches that are done since the last time."""
        cdef OutBatch *b
        cdef OutBatch *first
        made = []
        pthread_mutex_lock(&self.c.lock)
        first = self.c.done_first
        self.c.done_first = self.c.done_last = NULL
        b = first
        while b != NULL:
            b.watched = False
            b = b.done_next
        if self.c.done_fd >= 0:
            eventfd_clear(self.c.done_fd)
        pthread_mutex_unlock(&self.c.lock)
        while first != NULL:
            b = first
            first = b.done_next
            made += self._watches.pop(<size_t> b, ())
            pthread_mutex_lock(&self.c.lock)
            batch_unref(self.c, b)
            pthread_mutex_unlock(&self.c.lock)
        return made

    def _wait_done(self, timeout: float) -> bool:
        """Whether a watched batch is done, after at most `timeout` seconds."""
        cdef int64_t until = clock_us(CLOCK_MONOTONIC) + <int64_t> (timeout * 1e6)
        cdef bint found
        with nogil:
            pthread_mutex_lock(&self.c.lock)
            while self.c.done_first == NULL and not self.c.stopping and cond_wait_until(&self.c.done, &self.c.lock, until):
                pass
            found = self.c.done_first != NULL
            pthread_mutex_unlock(&self.c.lock)
        return found

    def _done_fd(self) -> int:
        """An eventfd that is readable while `_take_done` has something; made when first asked for."""
        pthread_mutex_lock(&self.c.lock)
        if self.c.done_fd < 0:
            self.c.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        pthread_mutex_unlock(&self.c.lock)
        return self.c.done_fd

    # ---- for the control thread ----

    def _set_topic(self, name: str, leaders: list) -> int:
        """`leaders`: broker ids by partition, -1 where there is none. The topic's handle."""
        cdef bytes encoded = name.encode()
        cdef int32_t n = len(leaders)
        cdef int32_t handle
        cdef int32_t *numbers = <int32_t *> malloc(max(n, 1) * sizeof(int32_t))
        if numbers == NULL:
            raise MemoryError
        for i in range(n):
            numbers[i] = leaders[i]
        pthread_mutex_lock(&self.c.lock)
        handle = core_set_topic(self.c, self._handles.get(name, -1), PyBytes_AS_STRING(encoded), <int16_t> len(encoded), numbers, n)
        pthread_mutex_unlock(&self.c.lock)
        free(numbers)
        if handle < 0:
            raise MemoryError
        if handle == len(self._names):
            self._names.append(name)
            self._handles[name] = handle
        return handle

    def _topics_known(self) -> list:
        return list(self._names)

    def _handle(self, name: str) -> int | None:
        """Of a topic that is known; None for others."""
        return self._handles.get(name)

    def _partitions(self, handle: int) -> int:
        return self.partitions_known(handle)

    def _wait_wanted(self, timeout: float) -> int:
        """What is asked for (Wanted's bits), after at most `timeout` seconds; -1 when the core has stopped."""
        cdef int64_t until = clock_us(CLOCK_MONOTONIC) + <int64_t> (timeout * 1e6)
        cdef int found
        with nogil:
            pthread_mutex_lock(&self.c.lock)
            while not self.c.wanted and not self.c.stopping and cond_wait_until(&self.c.control, &self.c.lock, until):
                pass
            found = -1 if self.c.stopping else self.c.wanted
            self.c.wanted = 0
            pthread_mutex_unlock(&self.c.lock)
        return found

    def _peers_wanted(self) -> list:
        """Brokers to which connections are asked for; the caller must answer with `_attach` or `_unreachable`."""
        cdef int i
        made = []
        pthread_mutex_lock(&self.c.lock)
        for i in range(self.c.peers_n):
            if self.c.peers[i].state == PEER_WANTED:
                self.c.peers[i].state = PEER_CONNECTING
                made.append(self.c.peers[i].node)
        pthread_mutex_unlock(&self.c.lock)
        return made

    def _attach(self, node: int, fd: int, version: int) -> None:
        """Gives the core a connected socket that does not block; `version`: of Produce."""
        cdef Peer *peer
        pthread_mutex_lock(&self.c.lock)
        peer = peer_of(self.c, node)
        if self.c.stopping or peer == NULL or peer.state != PEER_CONNECTING:
            close(fd)
        else:
            peer.fd = fd
            peer.version = <int16_t> min(version, <int> self.c.set.version)
            peer.state = PEER_HANDED
            core_wake(self.c)
        pthread_mutex_unlock(&self.c.lock)

    def _unreachable(self, node: int) -> None:
        cdef Peer *peer
        pthread_mutex_lock(&self.c.lock)
        peer = peer_of(self.c, node)
        if peer != NULL and peer.state == PEER_CONNECTING:
            peer.state = PEER_ABSENT
            peer.again_us = clock_us(CLOCK_MONOTONIC) + self.c.set.backoff_us
        core_wake(self.c)
        pthread_mutex_unlock(&self.c.lock)

    def _set_producer_id(self, producer_id: int, epoch: int) -> None:
        """A new producer: its sequences begin at 0 in every partition. Nothing may be in flight."""
        cdef int i, j
        cdef Part *p
        cdef OutBatch *b
        pthread_mutex_lock(&self.c.lock)
        self.c.producer_id = producer_id
        self.c.producer_epoch = epoch
        self.c.wanted &= ~WANT_PRODUCER_ID      # asked for again meanwhile: a second one would take the numbers of what is in flight
        for i in range(self.c.topics_n):
            for j in range(self.c.topics[i].n):
                p = self.c.topics[i].parts[j]
                p.sequence = p.epochs = 0
                p.bump = p.proven = False
                b = p.head
                while b != NULL:
                    b.sequence = -1
                    b = b.next
        core_wake(self.c)
        pthread_mutex_unlock(&self.c.lock)

    # ---- transactions ----

    def _transaction_wanted(self) -> list:
        """(topic, partition) to be added to the transaction."""
        return self.marked()

    def _set_open(self, on: bool) -> None:
        """A transaction is open, so that records may be sent."""
        self._needs_transaction = not on

    cdef list marked(self):
        cdef int i, j
        cdef Part *p
        made = []
        pthread_mutex_lock(&self.c.lock)
        for i in range(self.c.topics_n):
            for j in range(self.c.topics[i].n):
                p = self.c.topics[i].parts[j]
                if p.wants_transaction:
                    made.append((self._names[i], j))
        pthread_mutex_unlock(&self.c.lock)
        return made

    def _transaction_added(self, added: list) -> None:
        cdef Part *p
        pthread_mutex_lock(&self.c.lock)
        for topic, number in added:
            p = self.c.topics[<int> self._handles[topic]].parts[<int> number]
            p.wants_transaction = False
            p.in_transaction = True
        core_wake(self.c)
        pthread_mutex_unlock(&self.c.lock)

    def _transaction_over(self) -> None:
        cdef int i, j
        pthread_mutex_lock(&self.c.lock)
        for i in range(self.c.topics_n):
            for j in range(self.c.topics[i].n):
                self.c.topics[i].parts[j].in_transaction = self.c.topics[i].parts[j].wants_transaction = False
        self.c.transaction_error = 0
        pthread_mutex_unlock(&self.c.lock)

    def _transaction_error(self) -> int:
        """The first error of a record of this transaction; 0: none."""
        return self.c.transaction_error

    def _numbers_lost(self) -> bool:
        """Whether records that had a number already were given up, in any partition."""
        cdef int i, j
        cdef bint found = False
        pthread_mutex_lock(&self.c.lock)
        for i in range(self.c.topics_n):
            for j in range(self.c.topics[i].n):
                found = found or self.c.topics[i].parts[j].bump
        pthread_mutex_unlock(&self.c.lock)
        return found

    def _purge(self, code: int = LOST_CLOSED) -> None:
        """Fails all that waits to be sent, and the transaction with it."""
        pthread_mutex_lock(&self.c.lock)
        core_purge(self.c, code)
        pthread_mutex_unlock(&self.c.lock)

    def _stop(self) -> None:
        """Ends the network thread; what was not acknowledged fails."""
        self._closed = True
        if self.shared.born == forks:
            with nogil:
                core_stop(self.c)

    @property
    def _is_closed(self) -> bool:
        return self._closed

    def metrics(self) -> dict[str, int]:
        """Counters since the producer was made, and what waits now. Bytes are keys and values, unless said otherwise."""
        cdef Core *c = self.c
        return {
            "records_sent": c.records, "records_acknowledged": c.acked, "records_failed": c.failed, "bytes_acknowledged": c.payload_acked,
            "batches_waiting": c.incomplete, "buffer_bytes": c.used, "requests": c.requests, "request_bytes": c.bytes, "batch_retries":
            c.retried,
        }


cdef object as_bytes(given, what):
    if isinstance(given, (bytearray, memoryview)):
        return bytes(given)
    raise TypeError(f"{what}: expected bytes or None, not {type(given).__name__}; a {what}_serializer turns objects into bytes")
