"""Logs without a broker: a store on a ring and a pool of its own, driven by the calling thread. For tests and offline tools.

Every call drives the store's loop until what it asked for is done. A LocalStore and its LocalLogs belong to the thread that made them.
"""
import os
from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from fastlog.native.locallog cimport LocalLog as Log
from fastlog.native.locallog cimport Waiting, settings_of
from fastlog.native.log cimport LogOpen, log_open
from fastlog.native.logdrive cimport Drive
from fastlog.native.logpump cimport log_pump

from fastlog.native.locallog import AppendResult, LocalLog, LogError, Pending, Pinned, Positions, ReadResult, TimeResult, Watcher

__all__ = [
    "AppendResult", "LocalLog", "LocalStore", "LogError", "OpenResult", "Pending", "Pinned", "Positions", "ReadResult", "TimeResult",
    "Watcher",
]


class OpenResult(NamedTuple):
    """How opening went: see log.pxd's LogOpen."""

    error: int
    why: str
    recovered: bool
    lost_bytes: int
    arena_bytes: int


cdef void open_finished(LogOpen *o) noexcept nogil:
    (<Waiting *> (<uint8_t *> o - <size_t> &(<Waiting *> NULL).opening)).finished = True


cdef class LocalStore(Drive):
    """A store. Arguments: engine "auto", "uring" or "epoll"; memory in bytes; arena: path of a new tmpfs file, or None for anonymous
    memory; relics: paths of dead processes' arenas; threads of the worker pool; lock: a descriptor that stays open until the last
    request to the kernel has ended, or -1; flush_group: whether one flush may do for many logs; producer_expires_ms: 0 for a day;
    checkpoint_bytes: between checkpoints inside a segment, and unchecked_max: past those of all logs, 0: the defaults; tape: does all I/O
    there, on this thread and in an order that repeats, and time is what the turns make of it. Raises OSError when it can't be opened.
    """

    def open(self, path, *, topic_id=bytes(16), int partition=0, int leader_epoch=0, create=None, bint clean=False, bint together=False,
             **settings):
        """Opens a log and returns a LocalLog. Settings: the fields of LogSettings. With `together` what recovery leaves is flushed by the
        caller (DiskSync). Raises LogError."""
        cdef Log log = Log.__new__(Log)
        cdef Waiting *w = <Waiting *> calloc(1, sizeof(Waiting))
        cdef bytes name = os.fsencode(path)
        cdef LogOpen *o
        if w == NULL:
            raise MemoryError
        o = &w.opening
        try:
            o.path = PyBytes_AS_STRING(name)
            memcpy(o.topic_id, PyBytes_AS_STRING(topic_id), 16)
            o.index = partition
            o.leader_epoch = leader_epoch
            o.create = not os.path.exists(path) if create is None else create
            o.clean = clean
            o.together = together
            o.settings = settings_of(settings)
            o.done = open_finished
            log_open(self.store, o)
            self.until(&w.finished)
            result = OpenResult(o.error, o.why.decode(), o.recovered, o.lost_bytes, o.arena_bytes)
            if o.error:
                raise LogError(o.error, result.why)
            log.owner = self
            log.part = o.part
            log.opened = result
            log.settings = settings
            self.logs.append(log)
            return log
        finally:
            if w.finished:
                free(w)

    def pump(self, list logs, batch, int64_t count, *, int acks=-1, int in_flight=16):
        """Appends one batch `count` times, spread over logs, `in_flight` at once per log, without Python in between: for benchmarks.
        Returns the number of appends that failed.
        """
        return log_pump(self, logs, batch, count, acks, in_flight)

    def close(self):
        """Closes all logs and the store, cleanly."""
        for log in list(self.logs):
            log.close()
        self.finish()

    def crash(self):
        """Ends as a killed process does: what is in memory is gone, but for the arena."""
        for log in self.logs:
            (<Log> log).part = NULL
        self.logs.clear()
        self.drop()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.store != NULL:
            if kind is None:
                self.close()
            else:
                self.crash()
