"""Receiving: frames off a connection's bytes, requests out of frames. Back-pressure is here: what may not be parsed is not received."""
from fastlog.native.net cimport Conn

# Starts the next receive.
cdef void conn_receive(Conn *c) noexcept nogil
# Goes on with what was received, where it may. False: it may not.
cdef bint conn_parse(Conn *c) noexcept nogil
