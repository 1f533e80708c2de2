"""Checkpoints inside the active segment, so that recovery need not look through all of it, and index entries leaving memory."""
from libc.stdint cimport int64_t
from fastlog.native.store cimport LogState, StoreState

# Bytes past the checkpoints of all logs.
cdef int64_t checkpoint_owed(const StoreState *s) noexcept nogil
# Starts one for logs with much past their last, while that of all logs together is more than it may be. Once per turn of the store.
cdef void checkpoint_turn(StoreState *s) noexcept nogil
# The log is being freed.
cdef void checkpoint_leave(LogState *log) noexcept nogil
# Starts what is due: after appends and after flushes.
cdef void checkpoint_step(LogState *log) noexcept nogil
# Gives up one that waits for its flush; the segment ends or the log closes.
cdef void checkpoint_drop(LogState *log) noexcept nogil
