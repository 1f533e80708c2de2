"""A disk that remembers: everything that the log's rooms ask of the kernel goes through here, and is written down. For tests only.

A Tape is an engine for a ring (RingEngine) and the system calls behind native/files (FileCalls) in one. Operations reach the real files,
one at a time and in an order that the caller's `choose` decides, so a run repeats exactly. `events` is the story, from which a test
makes the states that a power cut could have left. Each event is a tuple; files are named by inode number:

    ("submit", id, "write", inode, at, bytes, durable)      a ring's write is under way; ("submit", id, "sync", inode): a flush
    ("done", id, error)                                     it ended; error: errno or 0
    ("gone", id)                                            it never will, as its process was killed
    ("write", inode, at, bytes)                             a blocking write
    ("truncate", inode, size)   ("extend", inode, size)     the latter by fallocate
    ("sync", inode, error)      ("dirsync", path, error)    ("disksync", names too, error)
    ("read_back", inode)                                    a log that is being opened reads it
    ("create", path, inode)     ("rename", old, new)    ("unlink", path)    ("mkdir", path)     ("rmdir", path)

One Tape is in use at a time, by one thread.
"""
import os

from libc.errno cimport errno
from libc.stdint cimport int64_t
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport PyObject
from fastlog.native.files cimport file_calls, file_calls_reset
from fastlog.native.ring cimport Op, RingEngine, iovec
from fastlog.native.ring_common cimport OP_FDATASYNC, OP_READ, OP_WRITE, STATE_ACTIVE, op_finish

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <sys/stat.h>
    #include <sys/uio.h>
    #include <unistd.h>
    static uint64_t fl_inode(int fd) { struct stat st; return fstat(fd, &st) ? 0 : (uint64_t) st.st_ino; }
    static uint64_t fl_inode_at(const char *path) { struct stat st; return lstat(path, &st) ? 0 : (uint64_t) st.st_ino; }
    static int fl_is_dir(int fd) { struct stat st; return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode); }
    static void fl_set_errno(int e) { errno = e; }
    static int64_t fl_length(int fd) { struct stat st; return fstat(fd, &st) ? -1 : (int64_t) st.st_size; }
    """
    unsigned long long fl_inode(int fd) nogil
    unsigned long long fl_inode_at(const char *path) nogil
    bint fl_is_dir(int fd) nogil
    int64_t fl_length(int fd) nogil
    void fl_set_errno(int e) nogil
    int k_open "open"(const char *path, int flags, ...) nogil
    int k_close "close"(int fd) nogil
    ssize_t k_pwrite "pwrite"(int fd, const void *buf, size_t n, int64_t at) nogil
    ssize_t k_pread "pread"(int fd, void *buf, size_t n, int64_t at) nogil
    ssize_t k_pwritev "pwritev"(int fd, const iovec *iov, int n, int64_t at) nogil
    ssize_t k_preadv "preadv"(int fd, const iovec *iov, int n, int64_t at) nogil
    int k_ftruncate "ftruncate"(int fd, int64_t n) nogil
    int k_fallocate "fallocate"(int fd, int mode, int64_t at, int64_t n) nogil
    int k_rename "rename"(const char *old, const char *new) nogil
    int k_unlink "unlink"(const char *path) nogil
    int k_mkdir "mkdir"(const char *path, unsigned mode) nogil
    int k_rmdir "rmdir"(const char *path) nogil
    int O_CREAT, O_TRUNC, RWF_DSYNC

LIES = frozenset({
    "ack before flush",             # what was to be durable is only written
    "flush before the write",       # a flush covers nothing that ended after the last write began
    "tail not cut",                 # a truncation does nothing
    "truncation not flushed",       # nor is the flush behind one a flush
    "blocks not zeroed",            # new blocks hold what another file has at the same place
    "overlapping writes",           # a write is reported done while it is still under way
    "directory not synced",
    "file system not synced",
})

cdef Tape current = None


cdef class Tape:
    """See the head of this file. `choose(n)` -> 0..n-1 decides what happens next; `fault(what, name)` -> errno has an operation fail,
    where `what` is the call's name and `name` the file's path or inode number; `lies`: some of LIES, bugs to be found; `opening`: whether
    a log is being opened (only then "tail not cut" lies); `donor(inode)` -> bytes that "blocks not zeroed" finds in new blocks.

    `events`: the story. `violations` of the ring's contract: a block that changed while it was being written.
    """

    def __cinit__(self, choose):
        self.events = []
        self.violations = []
        self.choose = choose
        self.fault = None
        self.lies = frozenset()
        self.donor = None
        self.waiting = []               # [id, address of the Op, inode, bytes or None]
        self.late = []                  # [id, inode, fd, at, bytes]: reported done, not there yet
        self.ends = []                  # addresses of Ops that are to be reported done
        self.last_write = 0             # the event of the last write's submission
        self.cut = None                 # inode of the last truncation
        self.engine.context = <void *> <PyObject *> self
        self.engine.op_submit = tape_submit
        self.engine.op_cancel = tape_cancel
        self.engine.op_wait = tape_wait

    cdef const RingEngine *given(self) noexcept:
        return &self.engine

    def take_over(self):
        """From here on the calls of native/files come here."""
        global current
        current = self
        file_calls.open = tape_open
        file_calls.close = tape_close
        file_calls.pwrite = tape_pwrite
        file_calls.ftruncate = tape_ftruncate
        file_calls.fdatasync = tape_sync
        file_calls.fsync = tape_sync
        file_calls.syncfs = tape_syncfs
        file_calls.fallocate = tape_fallocate
        file_calls.rename = tape_rename
        file_calls.unlink = tape_unlink
        file_calls.mkdir = tape_mkdir
        file_calls.rmdir = tape_rmdir

    def give_back(self):
        """And from here on to the kernel again."""
        global current
        file_calls_reset()
        current = None

    @property
    def busy(self):
        """Operations under way."""
        return len(self.waiting) + len(self.ends)

    @property
    def reads(self):
        """Reads under way, in the order they were begun: (inode, place in the file, bytes) of each."""
        found = []
        for _, address, inode, _ in self.waiting:
            op = <Op *> <size_t> address
            if op.kind == OP_READ:
                found.append((inode, op.offset, sum_of(<const iovec *> op.buf, <int> op.length)))
        return found

    def kill(self, land):
        """The process dies: of each write under way, what `land(bytes)` says, a list of (at, bytes), still reaches its file."""
        for number, address, inode, data in self.waiting:
            self.events.append(("gone", number))
            if data is not None:
                op = <Op *> <size_t> address
                for at, piece in land(data):
                    self.put(inode, op.fd, op.offset + at, piece)
        for number, inode, fd, at, data in self.late:
            self.events.append(("gone", number))
            self.put(inode, fd, at, data)
        self.waiting.clear()
        self.late.clear()
        self.ends.clear()

    def put(self, inode, fd, at, data):
        """Writes to a file, and writes it down."""
        copy = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
        try:
            os.pwrite(copy, data, at)
        finally:
            os.close(copy)
        self.events.append(("write", inode, at, data))

    cdef int failing(self, str what, name) except -1:
        return self.fault(what, name) if self.fault is not None else 0

    cdef int submitted(self, Op *op) except -1:
        data = None
        self.serial += 1
        op.state |= STATE_ACTIVE
        inode = fl_inode(op.fd)
        if op.kind == OP_WRITE:
            data = bytes_of(<const iovec *> op.buf, <int> op.length)
            durable = bool(op.rw_flags & RWF_DSYNC) and "ack before flush" not in self.lies
            self.last_write = len(self.events)
            self.events.append(("submit", self.serial, "write", inode, op.offset, data, durable))
            if "overlapping writes" in self.lies and not durable:
                self.late.append([self.serial, inode, op.fd, op.offset, data])
                self.ends.append(<size_t> op)
                return 0
        elif op.kind == OP_FDATASYNC and "ack before flush" not in self.lies:
            at = self.last_write if "flush before the write" in self.lies else len(self.events)
            self.events.append(("submit", self.serial, "sync", inode, at))
        self.waiting.append([self.serial, <size_t> op, inode, data])
        return 0

    cdef int step(self) except -1:
        """One completion; 0: there is none to come."""
        cdef Op *op
        cdef int64_t res
        cdef int error
        if self.ends:
            op = <Op *> <size_t> self.ends.pop(0)
            res = sum_of(<const iovec *> op.buf, <int> op.length)
            op_finish(op, <int> res, 0)
            return 1
        if self.late and (not self.waiting or self.choose(3) == 0):
            number, inode, fd, at, data = self.late.pop(self.choose(len(self.late)))
            copy = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
            os.pwrite(copy, data, at)
            os.close(copy)
            self.events.append(("done", number, 0))
            return 1
        if not self.waiting:
            return 0
        number, address, inode, data = self.waiting.pop(self.choose(len(self.waiting)))
        op = <Op *> <size_t> address
        if op.kind == OP_WRITE:
            if bytes_of(<const iovec *> op.buf, <int> op.length) != data:
                self.violations.append(f"a block changed while it was written, at {op.offset} of inode {inode}")
            error = self.failing("write", inode)
            res = -error if error else k_pwritev(op.fd, <const iovec *> op.buf, <int> op.length, op.offset)
        elif op.kind == OP_READ:
            error = self.failing("read", inode)
            res = -error if error else k_preadv(op.fd, <const iovec *> op.buf, <int> op.length, op.offset)
        else:
            error = self.failing("flush", inode)
            res = -error
        if res < 0 and not error:
            res = -errno
        if op.kind == OP_WRITE or (op.kind == OP_FDATASYNC and "ack before flush" not in self.lies):
            self.events.append(("done", number, -res if res < 0 else 0))
        op_finish(op, <int> res, 0)
        return 1


cdef bytes bytes_of(const iovec *iov, int n):
    cdef int i
    return b"".join([PyBytes_FromStringAndSize(<const char *> iov[i].iov_base, <Py_ssize_t> iov[i].iov_len) for i in range(n)])


cdef int64_t sum_of(const iovec *iov, int n) noexcept:
    cdef int64_t total = 0
    cdef int i
    for i in range(n):
        total += <int64_t> iov[i].iov_len
    return total


cdef void tape_submit(void *context, Op *op) noexcept with gil:
    (<Tape> <PyObject *> context).submitted(op)


cdef void tape_cancel(void *context, Op *op) noexcept nogil:
    pass                                # it ends soon anyway


cdef int tape_wait(void *context, int64_t timeout_ns) noexcept with gil:
    return (<Tape> <PyObject *> context).step()


# ---- the calls of native/files: they are made, unless `fault` says otherwise, and written down

cdef int failed(int error) noexcept:
    fl_set_errno(error)
    return -1


cdef int tape_open(const char *path, int flags, int mode) noexcept with gil:
    cdef unsigned long long before = fl_inode_at(path)
    cdef int error = current.failing("open", os.fsdecode(path))
    cdef int fd
    if error:
        return failed(error)
    fd = k_open(path, flags, mode)
    if fd < 0:
        return fd
    if current.opening and before:
        current.events.append(("read_back", before))
    if flags & O_CREAT and not before:
        current.events.append(("create", os.fsdecode(path), fl_inode(fd)))
    elif flags & O_TRUNC:
        current.events.append(("truncate", fl_inode(fd), 0))
    return fd


cdef int tape_close(int fd) noexcept with gil:
    return k_close(fd)


cdef ssize_t tape_pwrite(int fd, const void *buf, size_t n, int64_t at) noexcept with gil:
    cdef int error = current.failing("write", fl_inode(fd))
    cdef ssize_t done
    if error:
        return failed(error)
    done = k_pwrite(fd, buf, n, at)
    if done > 0:
        current.events.append(("write", fl_inode(fd), at, PyBytes_FromStringAndSize(<const char *> buf, done)))
    return done


cdef int tape_ftruncate(int fd, int64_t n) noexcept with gil:
    cdef int error = current.failing("truncate", fl_inode(fd))
    if error:
        return failed(error)
    current.cut = fl_inode(fd)
    if "tail not cut" in current.lies and current.opening and n < fl_length(fd):
        return 0
    if k_ftruncate(fd, n) != 0:
        return -1
    current.events.append(("truncate", fl_inode(fd), n))
    return 0


cdef int tape_sync(int fd) noexcept with gil:
    cdef bint directory = fl_is_dir(fd)
    name = os.readlink(f"/proc/self/fd/{fd}") if directory else fl_inode(fd)
    cdef int error = current.failing("dirsync" if directory else "flush", name)
    cut = current.cut
    current.cut = None
    if directory:
        if "directory not synced" not in current.lies:
            current.events.append(("dirsync", name, error))
    elif "ack before flush" not in current.lies and not ("truncation not flushed" in current.lies and cut == name):
        current.events.append(("sync", name, error))
    return failed(error) if error else 0


cdef int tape_syncfs(int fd) noexcept with gil:
    cdef int error = current.failing("flush", "file system")
    if "ack before flush" not in current.lies and "file system not synced" not in current.lies:
        current.events.append(("disksync", "directory not synced" not in current.lies, error))
    return failed(error) if error else 0


cdef int tape_fallocate(int fd, int mode, int64_t at, int64_t n) noexcept with gil:
    cdef int error = current.failing("allocate", fl_inode(fd))
    if error:
        return failed(error)
    if k_fallocate(fd, mode, at, n) != 0:
        return -1
    inode = fl_inode(fd)
    current.events.append(("extend", inode, at + n))
    if "blocks not zeroed" in current.lies and current.donor is not None:
        data = current.donor(inode)[at : at + n]
        if data:
            current.put(inode, fd, at, data)
            current.events.append(("sync", inode, 0))
    return 0


cdef int tape_rename(const char *old, const char *new) noexcept with gil:
    cdef int error = current.failing("rename", os.fsdecode(old))
    if error:
        return failed(error)
    if k_rename(old, new) != 0:
        return -1
    current.events.append(("rename", os.fsdecode(old), os.fsdecode(new)))
    return 0


cdef int tape_unlink(const char *path) noexcept with gil:
    cdef int error = current.failing("unlink", os.fsdecode(path))
    if error:
        return failed(error)
    if k_unlink(path) != 0:
        return -1
    current.events.append(("unlink", os.fsdecode(path)))
    return 0


cdef int tape_mkdir(const char *path, int mode) noexcept with gil:
    cdef int error = current.failing("mkdir", os.fsdecode(path))
    if error:
        return failed(error)
    if k_mkdir(path, <unsigned> mode) != 0:
        return -1
    current.events.append(("mkdir", os.fsdecode(path)))
    return 0


cdef int tape_rmdir(const char *path) noexcept with gil:
    cdef int error = current.failing("rmdir", os.fsdecode(path))
    if error:
        return failed(error)
    if k_rmdir(path) != 0:
        return -1
    current.events.append(("rmdir", os.fsdecode(path)))
    return 0
