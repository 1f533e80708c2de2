"""The consumer's core as Python has it. `fastlog.client.consumer` derives from ConsumerCore, and looks up what it asks for."""
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int16_t, int32_t, int64_t
from libc.string cimport memset

from fastlog.native.clientfetch cimport ASK_ERROR, ASK_METADATA, DIVERGED, FETCH_ABSENT, FETCH_CONNECTING, FETCH_HANDED, FETCH_WANTED, \
    Fetcher, FetchSettings, Place, Source, fetcher_ask, fetcher_doubtful, fetcher_free, fetcher_make, fetcher_move, fetcher_place, \
    fetcher_poke, fetcher_put_back, fetcher_source, fetcher_take, fetcher_topic, fetcher_wake
from fastlog.native.clientfetchloop cimport fetcher_start, fetcher_stop
from fastlog.native.clientlink cimport CLOCK_MONOTONIC, EFD_CLOEXEC, EFD_NONBLOCK, SLICE_US, clock_us, close, cond_wait_until, eventfd, \
    eventfd_clear, eventfd_set, forks
from fastlog.native.clientread cimport Chunk, chunk_ref
from fastlog.native.clientrecords cimport RecordBatch, batch_of
from fastlog.native.threads cimport pthread_cond_broadcast, pthread_mutex_lock, pthread_mutex_unlock


cdef class ConsumerCore:
    cdef Fetcher *f
    cdef int born
    cdef bint _closed
    cdef dict _places                   # (topic, partition) -> address of its Place
    cdef list _topic_names              # of the core's topics
    cdef RecordBatch _current           # being given out by records
    cdef int64_t _at
    cdef object _key_deserializer
    cdef object _value_deserializer

    def _start(self, settings: dict, client_id: bytes, key_deserializer, value_deserializer) -> None:
        cdef FetchSettings made
        memset(&made, 0, sizeof(FetchSettings))
        made.max_wait_ms = settings["max_wait_ms"]
        made.min_bytes = settings["min_bytes"]
        made.max_bytes = settings["max_bytes"]
        made.partition_bytes = settings["partition_bytes"]
        made.buffer_memory = settings["buffer_memory"]
        made.request_us = settings["request_us"]
        made.backoff_us = settings["backoff_us"]
        made.check_crc = settings["check_crc"]
        made.committed = settings["committed"]
        self._key_deserializer = key_deserializer
        self._value_deserializer = value_deserializer
        self._places = {}
        self._topic_names = []
        self._closed = False
        self.born = forks
        self.f = fetcher_make(&made, PyBytes_AS_STRING(client_id), <int16_t> len(client_id))
        if self.f == NULL:
            raise MemoryError
        if fetcher_start(self.f) < 0:
            raise OSError("no thread can be started")

    def __dealloc__(self):
        if self.f != NULL and self.born == forks:
            fetcher_stop(self.f)
            fetcher_free(self.f)

    def _refused(self, why):
        raise NotImplementedError

    cdef bint check(self) except False:
        if self.born != forks or self._closed or self.f == NULL:
            self._refused("forked" if self.born != forks else "closed")
        return True

    cdef Place *place(self, topic, int32_t number) except NULL:
        cdef Place *p
        cdef int32_t handle
        cdef bytes name
        found = self._places.get((topic, number))
        if found is not None:
            return <Place *> <size_t> found
        name = topic.encode()
        pthread_mutex_lock(&self.f.lock)
        handle = fetcher_topic(self.f, PyBytes_AS_STRING(name), <int16_t> len(name))
        p = fetcher_place(self.f, handle, number) if handle >= 0 else NULL
        pthread_mutex_unlock(&self.f.lock)
        if p == NULL:
            raise MemoryError
        if handle == len(self._topic_names):
            self._topic_names.append(topic)
        self._places[topic, number] = <size_t> p
        return p

    # ---- what is assigned ----

    def _assign(self, wanted: list) -> None:
        """[(topic, partition), ...]: just these from now on. Those that stay keep their places; new ones have none until `_seek`."""
        cdef int32_t i
        cdef Place *p
        cdef size_t address
        self.check()
        keep = set()
        for topic, number in wanted:
            keep.add(<size_t> self.place(topic, number))
        pthread_mutex_lock(&self.f.lock)
        for i in range(self.f.places_n):
            p = self.f.places[i]
            if p.assigned and <size_t> p not in keep:
                fetcher_move(self.f, p, -1, -1)
                p.assigned = False
        for address in keep:
            p = <Place *> address
            if not p.assigned:
                fetcher_move(self.f, p, -1, -1)
                p.assigned = True
                p.paused = False
                p.leader = -1
        fetcher_wake(self.f)
        pthread_mutex_unlock(&self.f.lock)
        if self._current is not None and (self._current.topic, self._current.chunk.number) not in wanted:
            self._current = None

    def _seek(self, topic: str, number: int, offset: int, epoch: int = -1) -> None:
        """Reads on from `offset`; `epoch`: of the leader that wrote what is before it, where that is known. KeyError for a partition that
        is not assigned."""
        cdef Place *p
        self.check()
        p = self.place(topic, number)
        if not p.assigned:
            raise KeyError((topic, number))
        pthread_mutex_lock(&self.f.lock)
        fetcher_move(self.f, p, offset, epoch)
        pthread_mutex_unlock(&self.f.lock)
        if self._current is not None and self._current.topic == topic and self._current.chunk.number == number:
            self._current = None

    def _pause(self, topic: str, number: int, on: bool) -> None:
        cdef Place *p
        self.check()
        p = self.place(topic, number)
        if not p.assigned:
            raise KeyError((topic, number))
        pthread_mutex_lock(&self.f.lock)
        p.paused = on
        fetcher_wake(self.f)
        pthread_mutex_unlock(&self.f.lock)
        if on and self._current is not None and self._current.topic == topic and self._current.chunk.number == number:
            self.put_back()

    cdef void put_back(self):
        """The rest of the batch that is being given out waits again."""
        cdef Chunk *c = self._current.chunk
        cdef Place *p = <Place *> c.part
        chunk_ref(c)
        pthread_mutex_lock(&self.f.lock)
        if c.generation == p.generation:
            fetcher_put_back(self.f, c)
        pthread_mutex_unlock(&self.f.lock)
        self._current = None

    def _state(self, topic: str, number: int) -> dict:
        """What is known of a partition; offsets that are not known are -1."""
        cdef Place *p = self.place(topic, number)
        pthread_mutex_lock(&self.f.lock)
        made = {"assigned": p.assigned, "paused": p.paused, "position": p.taken, "end": p.end, "high_watermark": p.high_watermark,
                "log_start": p.log_start, "known": p.answered, "leader": p.leader, "epoch": p.epoch, "fetched": p.position,
                "taken_epoch": p.taken_epoch, "parted": p.parted, "parted_epoch": p.parted_epoch}
        pthread_mutex_unlock(&self.f.lock)
        return made

    def _assigned(self) -> list:
        """[(topic, partition), ...]"""
        cdef int32_t i
        pthread_mutex_lock(&self.f.lock)
        made = [(self._topic_names[self.f.places[i].topic], self.f.places[i].number) for i in range(self.f.places_n)
                if self.f.places[i].assigned]
        pthread_mutex_unlock(&self.f.lock)
        return made

    def _homeless(self) -> list:
        """Those that are assigned and have no position yet."""
        cdef int32_t i
        pthread_mutex_lock(&self.f.lock)
        made = [(self._topic_names[self.f.places[i].topic], self.f.places[i].number) for i in range(self.f.places_n)
                if self.f.places[i].assigned and self.f.places[i].taken < 0]
        pthread_mutex_unlock(&self.f.lock)
        return made

    def _errors(self) -> list:
        """[(topic, partition, error, offset), ...] of what can't be read on; stays until a seek."""
        cdef int32_t i
        cdef Place *p
        made = []
        pthread_mutex_lock(&self.f.lock)
        for i in range(self.f.places_n):
            p = self.f.places[i]
            if p.assigned and p.error:
                made.append((self._topic_names[p.topic], p.number, p.error, p.position))
        pthread_mutex_unlock(&self.f.lock)
        return made

    def _forgive(self, topic: str, number: int) -> None:
        """Tries again where an error was."""
        cdef Place *p = self.place(topic, number)
        pthread_mutex_lock(&self.f.lock)
        p.error = 0
        fetcher_wake(self.f)
        pthread_mutex_unlock(&self.f.lock)

    # ---- reading ----

    def _wait(self, timeout: float) -> bool:
        """Until there is something to take, or something else has happened; whether there is."""
        cdef int64_t until = clock_us(CLOCK_MONOTONIC) + <int64_t> (timeout * 1e6), now
        cdef bint found = False
        self.check()
        while True:
            now = clock_us(CLOCK_MONOTONIC)
            with nogil:
                pthread_mutex_lock(&self.f.lock)
                if self.f.first == NULL and not self.f.poked and not self.f.stopping and now < until:
                    cond_wait_until(&self.f.ready, &self.f.lock, min(until, now + SLICE_US))
                found = self.f.first != NULL or self.f.poked
                self.f.poked = False
                pthread_mutex_unlock(&self.f.lock)
            PyErr_CheckSignals()
            if found or self.f.stopping or clock_us(CLOCK_MONOTONIC) >= until:
                return found
            return False                # a slice is over: the caller looks after its group

    cdef RecordBatch next_batch(self):
        cdef Chunk *c
        cdef RecordBatch made
        pthread_mutex_lock(&self.f.lock)
        c = fetcher_take(self.f)
        if c != NULL and c.epoch >= 0:
            (<Place *> c.part).taken_epoch = c.epoch
        pthread_mutex_unlock(&self.f.lock)
        if c == NULL:
            return None
        made = batch_of(c, self._topic_names[c.topic], self._key_deserializer, self._value_deserializer)
        if (<Place *> c.part).taken > (<long long *> c.offsets.p)[0]:      # put back, half read
            skip_to(made, (<Place *> c.part).taken)
        return made

    def _take_batch(self) -> RecordBatch | None:
        """The next batch; its end is the position then."""
        cdef RecordBatch made
        self.check()
        made = self._current
        if made is not None:
            self._current = None
            made = made[self._at:]
            if made.n == 0:
                made = None
        if made is None:
            made = self.next_batch()
        if made is None:
            return None
        self.moved(made.chunk, made.chunk.next_offset)
        return made

    cdef void moved(self, Chunk *c, int64_t offset):
        cdef Place *p = <Place *> c.part
        pthread_mutex_lock(&self.f.lock)
        if p.generation == c.generation:
            # where nothing of the partition waits, what was fetched behind it held no records (a transaction's end)
            p.taken = max(offset, p.position) if offset == c.next_offset and p.buffered == 0 else offset
        pthread_mutex_unlock(&self.f.lock)

    def _take_records(self, most: int) -> list:
        """Up to `most` records; the position is behind the last."""
        cdef int64_t left = most, n, i
        cdef RecordBatch batch
        self.check()
        made = []
        while left > 0:
            batch = self._current
            if batch is None:
                batch = self._current = self.next_batch()
                self._at = 0
                if batch is None:
                    break
            n = min(left, batch.n - self._at)
            for i in range(self._at, self._at + n):
                made.append(batch.record(i))
            self._at += n
            left -= n
            if self._at >= batch.n:
                self.moved(batch.chunk, batch.chunk.next_offset)
                self._current = None
            else:
                self.moved(batch.chunk, (<int64_t *> batch.chunk.offsets.p)[batch.first + self._at])
        return made

    def _next_record(self):
        """The next record, or None when none is there now."""
        cdef RecordBatch batch = self._current
        if batch is None:
            self.check()
            batch = self._current = self.next_batch()
            self._at = 0
            if batch is None:
                return None
        made = batch.record(self._at)
        self._at += 1
        if self._at >= batch.n:
            self.moved(batch.chunk, batch.chunk.next_offset)
            self._current = None
        else:
            (<Place *> batch.chunk.part).taken = (<int64_t *> batch.chunk.offsets.p)[batch.first + self._at]
        return made

    def _poke(self) -> None:
        """Ends `_wait`."""
        pthread_mutex_lock(&self.f.lock)
        fetcher_poke(self.f)
        pthread_mutex_unlock(&self.f.lock)

    def _ready_fd(self) -> int:
        """An eventfd that is readable when there may be something to take; made when first asked for."""
        pthread_mutex_lock(&self.f.lock)
        if self.f.ready_fd < 0:
            self.f.ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
            eventfd_set(self.f.ready_fd)
        pthread_mutex_unlock(&self.f.lock)
        return self.f.ready_fd

    def _clear_ready(self) -> None:
        eventfd_clear(self.f.ready_fd)

    # ---- for the control thread ----

    def _wait_wanted(self, timeout: float) -> int:
        """What is asked for (Asked's bits), after at most `timeout` seconds; -1 when the core has stopped."""
        cdef int64_t until = clock_us(CLOCK_MONOTONIC) + <int64_t> (timeout * 1e6)
        cdef int found
        with nogil:
            pthread_mutex_lock(&self.f.lock)
            while not self.f.wanted and not self.f.stopping and cond_wait_until(&self.f.control, &self.f.lock, until):
                pass
            found = -1 if self.f.stopping else self.f.wanted
            self.f.wanted = 0
            pthread_mutex_unlock(&self.f.lock)
        return found

    def _want_metadata(self) -> None:
        pthread_mutex_lock(&self.f.lock)
        self.f.wanted |= ASK_METADATA
        pthread_cond_broadcast(&self.f.control)
        pthread_mutex_unlock(&self.f.lock)

    def _set_leaders(self, topic: str, leaders: list, epochs: list) -> None:
        """Of all partitions of a topic; -1: none now."""
        cdef int32_t i
        cdef Place *p
        if topic not in self._topic_names:
            return
        handle = self._topic_names.index(topic)
        pthread_mutex_lock(&self.f.lock)
        for i in range(self.f.places_n):
            p = self.f.places[i]
            if p.topic == handle and p.number < len(leaders):
                p.leader = leaders[p.number]
                p.epoch = epochs[p.number]
                if p.leader >= 0:
                    p.again_us = 0
        fetcher_wake(self.f)
        pthread_mutex_unlock(&self.f.lock)

    def _unproven(self) -> list:
        """[(topic, partition, generation, leader, its epoch, epoch of the position), ...]: leaders to be asked what they have."""
        cdef int32_t i
        cdef Place *p
        cdef int64_t now = clock_us(CLOCK_MONOTONIC)
        made = []
        pthread_mutex_lock(&self.f.lock)
        for i in range(self.f.places_n):
            p = self.f.places[i]
            if p.assigned and not p.error and not p.fetching and p.position >= 0 and p.leader >= 0 and p.again_us <= now \
                    and fetcher_doubtful(p):
                made.append((self._topic_names[p.topic], p.number, p.generation, p.leader, p.epoch, p.position_epoch))
        pthread_mutex_unlock(&self.f.lock)
        return made

    def _proof(self, topic: str, number: int, generation: int, epoch: int, end: int | None, end_epoch: int) -> None:
        """What the leader of `epoch` answered: up to `end` its log is the one that was read, `end_epoch` wrote that; -1: it has nothing of
        it. None: the leader can't say, and is believed."""
        cdef Place *p = self.place(topic, number)
        pthread_mutex_lock(&self.f.lock)
        if p.generation == generation and p.assigned and not p.error:
            if end is None or end >= p.position:
                p.proven = epoch
            else:
                p.parted = end
                p.parted_epoch = end_epoch
                p.error = DIVERGED
                fetcher_ask(self.f, ASK_ERROR)
                fetcher_poke(self.f)
            fetcher_wake(self.f)
        pthread_mutex_unlock(&self.f.lock)

    def _no_proof(self, topic: str, number: int, generation: int) -> None:
        """The leader did not answer, or is none: the partition's is looked up, and asked again."""
        cdef Place *p = self.place(topic, number)
        pthread_mutex_lock(&self.f.lock)
        if p.generation == generation:
            p.leader = -1
            p.epoch = -1
            p.again_us = clock_us(CLOCK_MONOTONIC) + self.f.set.backoff_us
            fetcher_ask(self.f, ASK_METADATA)
            fetcher_wake(self.f)
        pthread_mutex_unlock(&self.f.lock)

    def _sources_wanted(self) -> list:
        cdef int i
        made = []
        pthread_mutex_lock(&self.f.lock)
        for i in range(self.f.sources_n):
            if self.f.sources[i].state == FETCH_WANTED:
                self.f.sources[i].state = FETCH_CONNECTING
                made.append(self.f.sources[i].node)
        pthread_mutex_unlock(&self.f.lock)
        return made

    def _attach(self, node: int, fd: int, version: int) -> None:
        """Gives the core a connected socket that does not block; `version`: of Fetch, 4 to 12."""
        cdef Source *s
        pthread_mutex_lock(&self.f.lock)
        s = fetcher_source(self.f, node)
        if self.f.stopping or s == NULL or s.state != FETCH_CONNECTING:
            close(fd)
        else:
            s.fd = fd
            s.version = <int16_t> version
            s.state = FETCH_HANDED
            fetcher_wake(self.f)
        pthread_mutex_unlock(&self.f.lock)

    def _unreachable(self, node: int) -> None:
        cdef Source *s
        pthread_mutex_lock(&self.f.lock)
        s = fetcher_source(self.f, node)
        if s != NULL and s.state == FETCH_CONNECTING:
            s.state = FETCH_ABSENT
            s.again_us = clock_us(CLOCK_MONOTONIC) + self.f.set.backoff_us
        fetcher_wake(self.f)
        pthread_mutex_unlock(&self.f.lock)

    def _stop(self) -> None:
        self._closed = True
        self._current = None
        if self.f != NULL and self.born == forks:
            with nogil:
                fetcher_stop(self.f)

    @property
    def _is_closed(self) -> bool:
        return self._closed

    @property
    def _is_forked(self) -> bool:
        return self.born != forks

    def metrics(self) -> dict[str, int]:
        """Counters since the consumer was made, and what waits now."""
        return {"records_fetched": self.f.records, "bytes_fetched": self.f.bytes, "fetch_requests": self.f.fetches,
                "buffer_bytes": self.f.buffered}


cdef void skip_to(RecordBatch batch, int64_t offset):
    cdef const long long *offsets = <const long long *> batch.chunk.offsets.p
    while batch.n and offsets[batch.first] < offset:
        batch.first += 1
        batch.n -= 1
