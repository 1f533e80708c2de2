"""One flush for many. See flushgroup.pxd."""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strlen, strrchr
from fastlog.native.files cimport PATH_MAX_, file_close
from fastlog.native.flaws cimport flaws_note
from fastlog.native.ring cimport Op, ring_fdatasync
from fastlog.native.store cimport FlushGroup, LogState, StoreState, Write

cdef extern from *:
    """
    #include <fcntl.h>
    #include <stdint.h>
    #include <unistd.h>
    /* A file without a name, with one block. */
    static int fl_nameless(const char *dir)
    {
        int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        char block[4096] = {0};
        if (fd >= 0 && (pwrite(fd, block, sizeof block, 0) != sizeof block || fsync(fd))) {
            close(fd);
            fd = -1;
        }
        return fd;
    }
    """
    int fl_nameless(const char *dir) nogil

cdef enum:
    PAYS_FROM = 16                  # durable writes under way


cdef FlushGroup *flushgroup_of(LogState *log) noexcept nogil:
    cdef StoreState *s = log.store
    cdef FlushGroup *group = s.groups
    cdef char parent[PATH_MAX_]
    cdef char *slash
    cdef size_t n = strlen(log.path)
    if log.group_known:
        return log.group
    log.group_known = True
    if not s.config.flush_group or not log.active.direct or n >= PATH_MAX_ or log.device == 0:
        return NULL
    while group != NULL and group.dev != log.device:
        group = group.next
    if group == NULL:
        memcpy(parent, log.path, n + 1)
        slash = strrchr(parent, b'/')
        if slash == NULL or slash == parent:
            return NULL
        slash[0] = 0
        group = <FlushGroup *> calloc(1, sizeof(FlushGroup))
        if group == NULL:
            return NULL
        group.dev = log.device
        group.store = s
        group.fd = fl_nameless(parent)
        group.next = s.groups
        s.groups = group
    if group.fd >= 0:
        log.group = group
    return log.group


cdef bint flushgroup_pays(const FlushGroup *group) noexcept nogil:
    return group.under_way >= PAYS_FROM


cdef void flushgroup_join(FlushGroup *group, Write *w) noexcept nogil:
    w.next = group.line
    group.line = w


cdef void flushed(Op *op) noexcept nogil:
    cdef FlushGroup *group = <FlushGroup *> op
    cdef Write *w = group.covered
    cdef Write *following
    group.covered = NULL
    group.busy = False
    group.store.stats.flushes += 1
    if op.res < 0:
        flaws_note(group.dev, -op.res)
    while w != NULL:
        following = w.next
        group.store.write_flushed(w, -op.res if op.res < 0 else 0)
        w = following


cdef void flushgroups_step(StoreState *s) noexcept nogil:
    cdef FlushGroup *group = s.groups
    while group != NULL:
        if group.line != NULL and not group.busy:
            group.covered = group.line
            group.line = NULL
            group.busy = True
            group.op.done = flushed
            ring_fdatasync(s.config.ring, &group.op, group.fd)
        group = group.next


cdef void flushgroups_free(StoreState *s) noexcept nogil:
    cdef FlushGroup *group
    while s.groups != NULL:
        group = s.groups
        s.groups = group.next
        file_close(group.fd)
        free(group)
