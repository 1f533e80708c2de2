"""Opening, closing and deleting logs, and the other controls of log.pxd."""
from libc.stdint cimport int64_t
from fastlog.native.log cimport LogCtl, LogOpen, Partition
from fastlog.native.store cimport LogState, StoreState

cdef void control_open(StoreState *s, LogOpen *o) noexcept nogil
cdef void control_start(LogState *log, LogCtl *c) noexcept nogil
# Takes the log's first control a step.
cdef void control_step(LogState *log) noexcept nogil
# Frees a log and what it holds, writing nothing.
cdef void log_free(LogState *log) noexcept nogil
