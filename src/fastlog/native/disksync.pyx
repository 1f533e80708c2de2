"""One flush for all that is written to a file system: a start that recovers thousands of logs need not wait for several flushes of each."""
import os

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EIO
from libc.stdint cimport int64_t, uint64_t
from fastlog.native.files cimport disk_open, disk_sync, file_close
from fastlog.native.flaws cimport flaws_device, flaws_of


cdef class DiskSync:
    """Makes durable what is written to a directory's file system from now on. Blocks. Raises OSError where that can't be had.

    A failure stays: what was written before it may be lost, whatever a later flush says. Those of others on the device count too.
    """
    cdef int fd
    cdef bint opened
    cdef int error
    cdef uint64_t device
    cdef int64_t flaws
    cdef object path

    def __cinit__(self, path):
        cdef bytes name
        cdef const char *at
        self.path = path
        name = os.fsencode(path)
        at = PyBytes_AS_STRING(name)
        with nogil:
            self.fd = disk_open(at)
        if self.fd < 0:
            raise OSError(-self.fd, os.strerror(-self.fd), os.fspath(path))
        self.opened = True
        self.device = flaws_device(self.fd)
        self.flaws = flaws_of(self.device)

    def __dealloc__(self):
        if self.opened:
            file_close(self.fd)

    def sync(self):
        """Blocks. Raises OSError, also when it failed before."""
        cdef int error
        if not self.error:
            with nogil:
                error = disk_sync(self.fd)
            self.error = error if error or flaws_of(self.device) == self.flaws else EIO
        if self.error:
            raise OSError(self.error, os.strerror(self.error), os.fspath(self.path))
