"""Blocks ahead of a log's end: allocated ones, the zeroed and durable ones among them (the runway), and the next segment.

All of it is made by the worker pool, in steps that follow the partition's rate. An append is accepted only where blocks exist; a durable
write is fast only on the runway, as blocks written before owe no metadata.
"""
from libc.stdint cimport int64_t
from fastlog.native.store cimport LogState, Segment

# Asks for blocks up to file position `need` of the active segment. The log is stepped when they are there.
cdef void runway_need(LogState *log, int64_t need) noexcept nogil
# Asks for more blocks, runway, or the next segment when little is left: after appends.
cdef void runway_ahead(LogState *log) noexcept nogil
# Asks for the next segment; True when it is there.
cdef bint next_segment_ready(LogState *log) noexcept nogil
# Makes the next segment, which must be ready, the active one. False: no memory.
cdef bint segment_roll(LogState *log) noexcept nogil
