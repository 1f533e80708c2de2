"""Flushes that failed, by device, in this process.

What had been written to a device and not flushed when a flush of it failed may be lost, whatever a later flush says: a disk with a volatile
cache may have dropped it, and the kernel tells of it once. So each log with unflushed data there goes offline, and comes back by recovery.
"""
from libc.stdint cimport int64_t, uint64_t
from fastlog.native.ring cimport Ring

# The device that a file lies on; 0: can't be told.
cdef uint64_t flaws_device(int fd) noexcept nogil
# A flush failed with an errno. Those that say nothing of the device (a full disk, a wrong call) do not count. Any thread. Wakes all rings
# that listen.
cdef void flaws_note(uint64_t device, int error) noexcept nogil
cdef void flaws_note_file(int fd, int error) noexcept nogil
# How many have failed: on all devices (cheap), or on one. Any thread.
cdef int64_t flaws_count() noexcept nogil
cdef int64_t flaws_of(uint64_t device) noexcept nogil
# A ring to be woken; one that finds no room is not.
cdef void flaws_listen(Ring *ring) noexcept nogil
cdef void flaws_unlisten(Ring *ring) noexcept nogil
