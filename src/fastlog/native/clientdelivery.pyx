"""See clientdelivery.pxd."""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free

from fastlog.native.clientbatch cimport BATCH_DONE, OutBatch
from fastlog.native.clientlink cimport CLOCK_MONOTONIC, SLICE_US, clock_us, cond_wait_until, forks
from fastlog.native.clientproduce cimport Core, Segment, batch_unref, core_free
from fastlog.native.clientsend cimport core_stop
from fastlog.native.threads cimport pthread_mutex_lock, pthread_mutex_unlock

cdef double FOREVER_S = 1e9         # microseconds are counted in 64 bits


cdef int64_t deadline_us(object timeout) except? -2:
    cdef double left
    if timeout is None:
        return -1
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout {timeout!r}: expected seconds, or None to wait until it is known")
    left = timeout
    if left != left:
        raise ValueError("timeout: expected seconds, not a NaN")
    return clock_us(CLOCK_MONOTONIC) + <int64_t> (min(max(left, 0.0), FOREVER_S) * 1e6)


cdef bint await_batch(Shared shared, object producer, OutBatch *batch, int64_t until) except False:
    cdef int64_t now
    cdef Core *c = shared.c
    if shared.born != forks:
        producer._refused("forked")
    while batch.state != BATCH_DONE:
        now = clock_us(CLOCK_MONOTONIC)
        if until >= 0 and now >= until:
            producer._refused("late")
        with nogil:
            pthread_mutex_lock(&c.lock)
            if batch.state != BATCH_DONE:
                cond_wait_until(&c.done, &c.lock, min(until, now + SLICE_US) if until >= 0 else now + SLICE_US)
            pthread_mutex_unlock(&c.lock)
        PyErr_CheckSignals()
    return True


cdef Delivery delivery_of(Shared shared, object producer, OutBatch *batch, int32_t index):
    """With a reference of its own."""
    cdef Delivery made = Delivery.__new__(Delivery)
    made.shared = shared
    made.producer = producer
    made.index = index
    made.batch = batch
    pthread_mutex_lock(&shared.c.lock)
    batch.refs += 1
    pthread_mutex_unlock(&shared.c.lock)
    return made


@cython.final
cdef class Shared:
    """The core's memory: it stays until the last result that points into it is gone."""
    def __dealloc__(self):
        if self.c != NULL and self.born == forks:
            core_stop(self.c)
            core_free(self.c)


@cython.final
@cython.no_gc_clear
@cython.freelist(4096)
cdef class Delivery:
    """What becomes of one record. Like a `concurrent.futures.Future`: `result(timeout)`, `exception(timeout)`, `done()`."""
    def __dealloc__(self):
        if self.batch != NULL and self.shared.born == forks:
            pthread_mutex_lock(&self.shared.c.lock)
            batch_unref(self.shared.c, self.batch)
            pthread_mutex_unlock(&self.shared.c.lock)

    def done(self) -> bool:
        """Whether the record was acknowledged or has failed."""
        return self.batch.state == BATCH_DONE

    def exception(self, timeout: float | None = None):
        """The error, or None when the record was acknowledged. ClientTimeoutError when it is not known after `timeout` seconds."""
        await_batch(self.shared, self.producer, self.batch, deadline_us(timeout))
        if self.batch.error == 0:
            return None
        return self.producer._failure(self.batch.error, self.producer._names[self.batch.topic], self.batch.number)

    def result(self, timeout: float | None = None):
        """Where the record is: topic, partition, offset, timestamp. Raises its error; ClientTimeoutError as `exception` does."""
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self.metadata()

    def metadata(self):
        """As `result`, of a record that was acknowledged."""
        cdef OutBatch *b = self.batch
        return self.producer._record_metadata(
            self.producer._names[b.topic], b.number, b.offset + self.index if b.offset >= 0 else -1,
            b.append_ms if b.append_ms >= 0 else b.base_ms)

    def __await__(self):
        """In asyncio: as `result`, without blocking the loop."""
        if self.batch.state != BATCH_DONE:
            yield from self.producer._future(self)
        return self.result(0)

    def add_done_callback(self, call) -> None:
        """Calls `call(delivery)` once it is done: at once if it is, otherwise in the producer's callback thread, or its event loop."""
        if not callable(call):
            raise TypeError(f"add_done_callback: expected a callable, not {call!r}")
        self.producer._watch(self, call)


@cython.final
@cython.no_gc_clear                 # as of a Delivery: what it frees is its core's, which it must still know then
cdef class Deliveries:
    """What becomes of the records of one call, in their order."""
    def __dealloc__(self):
        cdef int64_t i
        if self.found.items != NULL and self.shared.born == forks:
            pthread_mutex_lock(&self.shared.c.lock)
            for i in range(self.found.n):
                batch_unref(self.shared.c, self.found.items[i].batch)
            pthread_mutex_unlock(&self.shared.c.lock)
        free(self.found.items)

    def __len__(self):
        return self.count

    def done(self) -> bool:
        """Whether all were acknowledged or have failed."""
        cdef int64_t i
        for i in range(self.found.n):
            if self.found.items[i].batch.state != BATCH_DONE:
                return False
        return True

    def wait(self, timeout: float | None = None) -> None:
        """Waits until all are done; ClientTimeoutError when they are not after `timeout` seconds."""
        cdef int64_t i
        cdef int64_t until = deadline_us(timeout)
        for i in range(self.found.n):
            if self.found.items[i].batch.state != BATCH_DONE:
                await_batch(self.shared, self.producer, self.found.items[i].batch, until)

    def result(self, timeout: float | None = None) -> Deliveries:
        """Waits, and raises the first record's error that has one."""
        cdef int64_t i
        self.wait(timeout)
        for i in range(self.found.n):
            if self.found.items[i].batch.error:
                raise self.producer._failure(
                    self.found.items[i].batch.error, self.producer._names[self.found.items[i].batch.topic],
                    self.found.items[i].batch.number)
        return self

    def __await__(self):
        """In asyncio: as `result`, without blocking the loop."""
        for one in self._each():
            if not one.done():
                yield from self.producer._future(one)
        return self.result(0)

    def batches(self) -> list:
        """(first record, records, partition, offset of the first or -1, error code) of each run of records that went into one batch."""
        cdef int64_t i, at = 0
        cdef Segment *s
        self.wait()
        made = []
        for i in range(self.found.n):
            s = self.found.items + i
            made.append((at, s.n, s.batch.number, s.batch.offset + s.index if s.batch.offset >= 0 else -1, s.batch.error))
            at += s.n
        return made

    def _each(self) -> list:
        """A Delivery of each batch's first record."""
        cdef int64_t i
        seen = {}
        for i in range(self.found.n):
            if <size_t> self.found.items[i].batch not in seen:
                seen[<size_t> self.found.items[i].batch] = delivery_of(
                    self.shared, self.producer, self.found.items[i].batch, self.found.items[i].index)
        return list(seen.values())
