"""Putting a compacted segment in place of those it was made from, so that a crash at any moment leaves the one or the others.

Names and order are Kafka's. `<base>.log.cleaned` and its indexes are whole and durable, but nothing counts them yet. They become `.swap`,
the log last: from then on the new segment counts, durably. The old files become `.deleted` or go, the `.swap` ones get their final names,
the log last again. A start finishes what it finds: `.cleaned` goes, `.log.swap` takes its place, `.swap` without its log goes.
"""
from libc.stdint cimport int64_t
from fastlog.native.log cimport LogCtl
from fastlog.native.store cimport LogState

# Finishes what a crash left of swaps in a partition's directory. Blocking. 0 or an errno.
cdef int swap_finish(const char *path) noexcept nogil
# Takes a CTL_SWAP a step; True when it was answered, and is out of the log's controls.
cdef void swap_step(LogState *log, LogCtl *c) noexcept nogil
# Where the segments end that are sealed and all of whose records are decided: those below can be compacted.
cdef int64_t swap_limit(const LogState *log) noexcept nogil
