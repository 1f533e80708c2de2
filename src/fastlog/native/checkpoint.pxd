"""Checkpoints inside the active segment, so that recovery need not look through all of it, and index entries leaving memory."""
from fastlog.native.store cimport LogState

# Starts what is due: after appends and after flushes.
cdef void checkpoint_step(LogState *log) noexcept nogil
# Gives up one that waits for its flush; the segment ends or the log closes.
cdef void checkpoint_drop(LogState *log) noexcept nogil
