"""The producer's network thread: what is due is sent, what is answered completed."""
from fastlog.native.clientproduce cimport Core, Peer
from libc.stdint cimport int32_t

# 0 or -errno
cdef int core_start(Core *c) noexcept nogil
# Ends the thread and fails what was not acknowledged; the memory stays for results until core_free.
cdef void core_stop(Core *c) noexcept nogil
# The peer of a broker, made when there is none; NULL without memory. With the lock held.
cdef Peer *peer_of(Core *c, int32_t node) noexcept nogil
