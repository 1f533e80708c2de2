"""One log of a store that the calling thread drives, and the requests to it."""
from libc.stdint cimport int32_t, int64_t
from fastlog.native.log cimport Append, LogCtl, LogOpen, LogSettings, Partition, Read, TimeQuery
from fastlog.native.logdrive cimport Drive

cdef struct Waiting:                # one request and whether it is done
    Append append
    Read read
    TimeQuery query
    LogCtl control
    LogOpen opening
    bint finished


cdef class LocalLog:
    cdef Drive owner
    cdef Partition *part            # NULL: it is closed
    cdef readonly object opened
    cdef readonly dict settings
    # Raises ValueError when it is closed.
    cdef Partition *open_part(self) except NULL
    cdef Waiting *read_of(self, int64_t offset, int32_t max_bytes, bint to_log_end, bint whole_first, bint committed_only,
                          bint wait=*) except NULL
    cdef tuple read_both(self, int64_t offset, int32_t max_bytes, bint to_log_end, bint whole_first, bint committed_only)


# LogSettings of a dict with fields of the same names; those not given have a default. Raises TypeError for a name that there is not.
cdef LogSettings settings_of(dict given)
