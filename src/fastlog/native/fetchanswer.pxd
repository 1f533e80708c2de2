"""The response of a Fetch request, and the request's end.

The response is header bytes of the connection's, with the pins (or the copies) of the reads between them, in one iovec.
"""
from libc.stdint cimport int16_t
from fastlog.native.fetchwork cimport FetchWork
from fastlog.native.net cimport Request

cdef void fetch_answer(FetchWork *work) noexcept nogil                          # with what was read
cdef void fetch_answer_error(FetchWork *work, int16_t error) noexcept nogil     # of the whole request
cdef void fetch_finish(FetchWork *work) noexcept nogil                          # the response is complete, or there is none
cdef void fetch_work_free(FetchWork *work) noexcept nogil                       # released, nothing outstanding
# The connection's calls (see Request)
cdef void fetch_release(Request *r) noexcept nogil                              # the response was sent or dropped
cdef bint fetch_unpin(Request *r) noexcept nogil                                # copies instead of pins; False: no room
