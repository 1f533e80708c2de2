"""Blocking file operations of a partition's directory, for worker threads. All return 0 or an errno unless they say otherwise.

Names are Kafka's: `<20 digits of the base offset>.log` and so on. `next.segment` is the provisional name of the segment after the active
one: it has no offset yet, and no suffix that Kafka would look at.
"""
from libc.stdint cimport int64_t, uint8_t

cdef enum:
    PATH_MAX_ = 4096
    NAME_MAX_ = 64
    SNAPSHOT_MAX = 1073741824       # bytes of a file of ours that is read whole

cdef struct FileCalls:              # the system calls below this room, each as the kernel's of that name: -1 and errno on failure
    int (*open)(const char *path, int flags, int mode) noexcept nogil
    int (*close)(int fd) noexcept nogil
    ssize_t (*pwrite)(int fd, const void *buf, size_t n, int64_t at) noexcept nogil
    ssize_t (*pread)(int fd, void *buf, size_t n, int64_t at) noexcept nogil
    int (*ftruncate)(int fd, int64_t n) noexcept nogil
    int (*fdatasync)(int fd) noexcept nogil
    int (*fsync)(int fd) noexcept nogil
    int (*syncfs)(int fd) noexcept nogil
    int (*fallocate)(int fd, int mode, int64_t at, int64_t n) noexcept nogil
    int (*rename)(const char *old, const char *new) noexcept nogil
    int (*unlink)(const char *path) noexcept nogil
    int (*mkdir)(const char *path, int mode) noexcept nogil
    int (*rmdir)(const char *path) noexcept nogil

cdef extern from *:
    """
    #include <stdlib.h>
    static inline void *fl_aligned(size_t n) { void *p; return posix_memalign(&p, 4096, n) ? 0 : p; }
    """
    void *file_memory "fl_aligned"(size_t n) noexcept nogil     # for O_DIRECT: aligned to 4096 bytes; free() it. NULL: there is none

# The seam to the kernel: tests record calls here, and have them fail. Set before any file is opened; the kernel's until then.
cdef FileCalls file_calls
cdef void file_calls_reset() noexcept nogil

# "<dir>/<name>" into out (PATH_MAX_ bytes); an errno when it is too long.
cdef int path_join(char *out, const char *dir, const char *name) noexcept nogil
# "<dir>/<base offset><suffix>"
cdef int path_of(char *out, const char *dir, int64_t base_offset, const char *suffix) noexcept nogil
# Opens for O_DIRECT where that works (*direct says). Returns a descriptor or -errno.
cdef int file_open(const char *path, bint write, bint create, bint *direct) noexcept nogil
# The same without O_DIRECT.
cdef int file_open_buffered(const char *path, bint write) noexcept nogil
cdef void file_close(int fd) noexcept nogil
cdef int64_t file_size(int fd) noexcept nogil           # bytes or -errno
cdef bint file_exists(const char *path) noexcept nogil
cdef int64_t file_size_at(const char *path) noexcept nogil  # bytes or -errno
# All n bytes at `at`, or an errno. `buf`, n and at must be aligned when the descriptor is O_DIRECT.
cdef int file_write(int fd, const void *buf, size_t n, int64_t at) noexcept nogil
# Up to n bytes: the number read (short only at the end of the file), or -errno.
cdef int64_t file_read(int fd, void *buf, size_t n, int64_t at) noexcept nogil
# Zeroes [from_, to), aligned, durably.
cdef int file_zero(int fd, int64_t from_, int64_t to) noexcept nogil
# Makes blocks for [from_, to) and grows the file to `to`; with less room than that at least to `least`. *got is where they end. ENOSPC also
# when less than `reserve` bytes, or a twentieth of the disk if that is less, would be left free.
cdef int file_allocate(int fd, int64_t from_, int64_t to, int64_t least, int64_t reserve, int64_t *got) noexcept nogil
# Free bytes of a file's disk beyond those that `file_allocate` would leave.
cdef int64_t file_room(int fd, int64_t reserve) noexcept nogil
cdef int file_sync(int fd) noexcept nogil
cdef int file_cut(int fd, int64_t size) noexcept nogil          # truncates
cdef int file_trim(int fd, int64_t size) noexcept nogil         # the same, durably
cdef int dir_sync(const char *path) noexcept nogil
# For disk_sync: a descriptor of a nameless file on a directory's file system, or -errno.
cdef int disk_open(const char *dir) noexcept nogil
# Makes everything durable that was written to the file system, names and sizes too, by whomever. It fails when anything could not be
# written back since disk_open (syncfs(2), Linux 5.8).
cdef int disk_sync(int fd) noexcept nogil
# Puts a file in place durably but for its directory entry: written beside, flushed, renamed.
cdef int file_put(const char *dir, const char *name, const void *data, size_t n) noexcept nogil
# Writes n bytes at `at` of a file, made if missing, and ends it there, durably.
cdef int file_put_at(const char *path, const void *data, size_t n, int64_t at) noexcept nogil
# The whole file in malloc'ed memory (limit bytes at most, else EFBIG).
cdef int file_get(const char *path, size_t limit, uint8_t **data, size_t *n) noexcept nogil
cdef int file_rename(const char *old, const char *new) noexcept nogil
cdef int file_unlink(const char *path) noexcept nogil   # a file that is not there is no error
# Removes a segment's index files, as far as that works; those that end in `ending` ("": the ones in use).
cdef void files_drop_indexes(const char *dir, int64_t base_offset, const char *ending) noexcept nogil
# Removes a directory and the files in it.
cdef int dir_remove(const char *path) noexcept nogil
cdef int dir_make(const char *path) noexcept nogil      # durably
