"""One event loop's kernel side, with two engines behind it: io_uring, and epoll with a small thread pool for file I/O.

Contract. A Ring belongs to the thread that calls `ring_start` on it; only `ring_wake` may be called from others. Every operation is
an `Op` inside a struct of its owner, which must stay in place, with the memory it names, until `done` has been called: that is
the kernel's until then. `done` is called exactly once per submission (for `ring_accept` once per connection, and last without
OP_MORE), always from inside `ring_wait`, never from inside a submit. Submitting never fails: what does not fit the
submission queue waits in a list inside the Ring. Order among submissions is not promised. `res` is as the system call's: >= 0, or
-errno. A done callback may submit, and may free its Op.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from posix.types cimport off_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

ctypedef void (*OpDone)(Op *op) noexcept nogil

cdef enum:
    OP_MORE = 1                     # Op.flags: this submission will complete again

cdef struct Op:
    OpDone done                     # set by the owner before submitting
    int32_t res                     # set before done is called
    uint32_t flags                  # OP_MORE
    # the engine's own, from submit to done:
    void *buf                       # ring_recv_any: where the bytes are, valid only inside done
    uint64_t length
    int64_t offset
    int fd
    int rw_flags
    uint8_t kind
    uint8_t state
    Op *next
    Op *prev

cdef enum RingKind:
    RING_AUTO = 0
    RING_URING = 1
    RING_EPOLL = 2
    RING_GIVEN = 3

cdef struct RingEngine:             # an engine of the caller's own, with the contracts above: tests have disks that record, and that fail
    void *context
    void (*op_submit)(void *context, Op *op) noexcept nogil
    void (*op_cancel)(void *context, Op *op) noexcept nogil
    int (*op_wait)(void *context, int64_t timeout_ns) noexcept nogil

cdef struct RingConfig:
    int kind                        # RingKind; AUTO takes io_uring when it works, else epoll
    uint32_t entries                # submission queue entries; a power of two
    uint32_t recv_buffers           # how many buffers are behind ring_recv_any,
    uint32_t recv_buffer_bytes      # and the size of each
    int io_threads                  # file I/O threads of the epoll engine
    const int *lock_fds             # descriptors to keep open until the last request has ended (registered in the ring)
    int lock_fds_n
    const RingEngine *given         # RING_GIVEN: the engine, which outlives the ring

cdef struct Ring                    # opaque

cdef struct RingStats:
    uint64_t waits                  # system calls that waited
    uint64_t submitted
    uint64_t completed
    uint64_t punted                 # file operations that went to a thread (epoll engine), else 0
    uint64_t wakes                  # wakes received
    uint64_t backlog_max            # most submissions that ever waited for room

cdef enum RingFeature:              # of io_uring; each is used where the kernel has it
    RING_SINGLE_ISSUER = 1
    RING_DEFER_TASKRUN = 2
    RING_COOP_TASKRUN = 4
    RING_MULTISHOT = 8              # accept
    RING_BUFFERS = 16               # buffers that the kernel picks
    RING_POLL_FIRST = 32            # receive

# Makes a ring; any thread. On failure returns -errno and writes why (what was tried and what the kernel said) into `why`.
cdef int ring_open(Ring **out, const RingConfig *config, char *why, size_t why_len) noexcept nogil
# The same doing without the features in `without` (RingFeature bits) although the kernel has them: to test the fallbacks.
cdef int ring_open_without(Ring **out, const RingConfig *config, uint32_t without, char *why, size_t why_len) noexcept nogil
# Binds the ring to the calling thread; must be called there before anything else (SINGLE_ISSUER, DEFER_TASKRUN). 0 or -errno.
cdef int ring_start(Ring *ring) noexcept nogil
# Cancels and reaps all that is under way, without calling done, and frees the ring. The owner's thread.
cdef void ring_close(Ring *ring) noexcept nogil
cdef RingKind ring_kind(const Ring *ring) noexcept nogil
# One line for an operator: the engine, why it was chosen, and the features in use. Static for the ring's life.
cdef const char *ring_why(const Ring *ring) noexcept nogil
cdef void ring_stats(const Ring *ring, RingStats *out) noexcept nogil

# Submits what is pending, waits for at least one completion, a wake, or the time-out (ns; 0: don't wait; < 0: no limit), and runs
# the done callbacks. Returns the number of completions run.
cdef int ring_wait(Ring *ring, int64_t timeout_ns) noexcept nogil
# Makes a ring_wait that is under way, or else the next one, return soon. Any thread; async-signal-safe; cheap when a wake is
# already pending.
cdef void ring_wake(Ring *ring) noexcept nogil

# Sockets (non-blocking). accept: one Op serves a listener until cancelled or failed; accepted sockets are CLOEXEC|NONBLOCK.
cdef void ring_accept(Ring *ring, Op *op, int fd) noexcept nogil
cdef void ring_recv(Ring *ring, Op *op, int fd, void *buf, size_t n) noexcept nogil
# Receives into a buffer that the engine picks when bytes are there, so that an idle connection holds none. In done, op.buf has op.res
# bytes, valid only until done returns.
cdef void ring_recv_any(Ring *ring, Op *op, int fd) noexcept nogil
cdef void ring_sendmsg(Ring *ring, Op *op, int fd, msghdr *message) noexcept nogil     # MSG_NOSIGNAL; short counts are possible
# Files. rw_flags: RWF_DSYNC and such. Short counts are possible.
cdef void ring_writev(Ring *ring, Op *op, int fd, const iovec *iov, int n, int64_t offset, int rw_flags) noexcept nogil
cdef void ring_readv(Ring *ring, Op *op, int fd, const iovec *iov, int n, int64_t offset) noexcept nogil
cdef void ring_fdatasync(Ring *ring, Op *op, int fd) noexcept nogil
# Asks for an operation under way to end soon; its done is still called, with what happened or -ECANCELED.
cdef void ring_cancel(Ring *ring, Op *op) noexcept nogil
