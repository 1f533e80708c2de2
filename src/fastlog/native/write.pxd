"""Getting accepted bytes to the disk: one write or flush under way per log, carrying all that gathered meanwhile."""
from libc.stdint cimport int64_t
from fastlog.native.store cimport LogState, StoreState, Write
from fastlog.native.timer cimport Timer

# Starts the next write or flush of a log if one is due and none is under way.
cdef void write_next(LogState *log) noexcept nogil
# A write that waited for a flush of its device: the store's `write_flushed`.
cdef void write_ended(Write *w, int error) noexcept nogil
# Whether all that was accepted is written, and flushed where asked.
cdef bint write_idle(const LogState *log) noexcept nogil
cdef void lazy_fired(Timer *t) noexcept nogil
cdef void flush_fired(Timer *t) noexcept nogil
# Frees what writes keep for the next ones; none may be under way.
cdef void writes_free(StoreState *s) noexcept nogil
