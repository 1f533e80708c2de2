"""The bridge: the data plane as the control plane sees it. It starts shards, carries commands to them and what they hand over back.

All methods of DataPlane are called on the control plane's thread, but for `run_shard`, which is a shard's thread for life. Nothing
here decides anything.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strdup

from fastlog.native.batch cimport batch_peek
from fastlog.native.batchcheck cimport BatchRules
from fastlog.native.bytes cimport reader_left
from fastlog.native.command cimport CMD_APPEND, CMD_CONTROL, CMD_DRAIN, CMD_FIND_TIME, CMD_FREE, CMD_LISTEN, CMD_OPEN, CMD_PUBLISH, \
    CMD_READ, CMD_STOP, CMD_UNLISTEN, CMD_UNPUBLISH, Command, Reply, TxnCheck, TxnCheckPart, TxnVerdict
from fastlog.native.conn cimport peer_name
from fastlog.native.log cimport LOG_WHY, SHARDS_MAX, LogSettings, Partition, Relics, Store, StoreConfig, StoreStats, position_get, \
    relics_bytes, relics_drop, relics_open, store_close, store_expire_producers, store_open, store_stats
from fastlog.native.mail cimport MailBox, MailItem, mail_flush, mail_free, mail_init, mail_send, mail_take
from fastlog.native.net cimport MAIL_COMMAND, MAIL_COMMAND_DONE, MAIL_LOG, MAIL_REPLY, MAIL_REQUEST, MAIL_TXN_CHECK, \
    MAIL_TXN_CHECKED, PEER_MAX, Counters, LogLine, Request, Shard
from fastlog.native.quota cimport QUOTA_KINDS, QUOTA_REQUEST, Quotas, quota_begin, quota_end, quota_free, quota_name, quota_on, \
    quota_open, quota_record
from fastlog.native.ring cimport RING_AUTO, RING_EPOLL, RING_URING, RingConfig, RingStats, ring_close, ring_open, ring_start, \
    ring_stats, ring_why
from fastlog.native.shard cimport ShardConfig, shard_free, shard_init, shard_run, shard_wake
from fastlog.native.standing cimport StandingAnswer
from fastlog.native.table cimport TOPIC_NAME_MAX, Topic, topic_new
from fastlog.native.work cimport Pool, home_close, home_open, pool_close, pool_open

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int value, int flags)
    int EFD_CLOEXEC
    int EFD_NONBLOCK

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t read(int fd, void *p, size_t n)

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    static inline void fl_bridge_set(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    static inline void *fl_lines(size_t n) { void *p = NULL; if (posix_memalign(&p, 64, n)) return NULL; return memset(p, 0, n); }
    """
    void set_seq "fl_bridge_set"(int64_t *p, int64_t v) noexcept nogil
    void *lines "fl_lines"(size_t n) noexcept nogil     # zeroed, at a cache line's start

REQUEST = 0
DONE = 1
LOG = 2
TXN_CHECK = 3
APPENDED = 4

ENGINES = {"auto": RING_AUTO, "uring": RING_URING, "epoll": RING_EPOLL}


cdef class DataPlane:
    """Shards, their mail, and the control plane's end of it.

    shards: int, 1 to 64. io: "auto", "uring" or "epoll". memory: bytes of log memory per shard. buffers: bytes of receive buffers per
    shard. arenas: one path or None per shard. workers: threads of the pool. lock_fds: kept open by every ring. flexible: per API
    key (128) the first flexible request version or -1. limits: int by name, as `Limits` in net.pxd. quota_*: see
    quota.pxd. unchecked_max: of each shard, see log.pxd. Raises OSError, MemoryError.
    """
    cdef Shard **shards
    cdef Store **stores
    cdef MailBox **boxes            # (n + 1) * (n + 1): [from * (n + 1) + to]; n is the control plane
    cdef ShardConfig config
    cdef StoreConfig store_config
    cdef RingConfig ring_config
    cdef int *locks
    cdef Pool *pool
    cdef Relics *relics
    cdef int64_t *awake
    cdef Quotas *quotas
    cdef readonly int n
    cdef int event
    cdef uint64_t unsent            # a bit for each shard that there is mail for which `flush` has to move on
    cdef readonly object engine
    cdef readonly str relics_why      # what could not be used of them, for the operator
    cdef object arenas

    def __cinit__(self, *, int shards, str io, uint64_t memory, uint64_t buffers, list arenas, int workers, list lock_fds, list flexible,
                  dict limits, uint64_t accept_mask, bint flush_group, list relics, int quota_samples, int64_t quota_window_ms,
                  int64_t producer_expires_ms, int64_t unchecked_max):
        cdef int i
        cdef int rc
        self.n = shards
        self.relics_why = ""
        self.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.event < 0:
            raise OSError("eventfd")
        self.awake = <int64_t *> lines(64)
        self.quotas = quota_open(quota_samples, quota_window_ms)
        self.shards = <Shard **> calloc(shards, sizeof(Shard *))
        self.stores = <Store **> calloc(shards, sizeof(Store *))
        self.boxes = <MailBox **> calloc((shards + 1) * (shards + 1), sizeof(MailBox *))
        if self.quotas == NULL or self.awake == NULL or self.shards == NULL or self.stores == NULL or self.boxes == NULL:
            raise MemoryError
        for i in range((shards + 1) * (shards + 1)):
            self.boxes[i] = <MailBox *> lines(sizeof(MailBox))
            if self.boxes[i] == NULL:
                raise MemoryError
            mail_init(self.boxes[i])
        self.locks = <int *> calloc(len(lock_fds) + 1, sizeof(int))
        if self.locks == NULL:
            raise MemoryError
        for i in range(len(lock_fds)):
            self.locks[i] = lock_fds[i]
        rc = pool_open(&self.pool, workers)
        if rc < 0:
            raise OSError(-rc, "worker threads")
        self._open_relics(relics)
        self.config.buffers_max = buffers
        self.config.accept_mask = accept_mask
        memset(&self.store_config, 0, sizeof(self.store_config))
        self.store_config.pool = self.pool
        self.store_config.memory = memory
        self.store_config.relics = self.relics
        self.store_config.flush_group = flush_group
        self.store_config.producer_expires_ms = producer_expires_ms
        self.store_config.unchecked_max = unchecked_max
        self.ring_config.kind = ENGINES[io]
        self.ring_config.entries = 1024
        self.ring_config.recv_buffers = 256
        self.ring_config.recv_buffer_bytes = 4096
        self.ring_config.io_threads = 4
        self.ring_config.lock_fds = self.locks
        self.ring_config.lock_fds_n = len(lock_fds)
        self.arenas = arenas
        for i in range(shards):
            self._make_shard(i, flexible, limits)

    def _open_relics(self, list paths):
        cdef const char **names
        cdef char why[LOG_WHY]
        cdef int i
        held = [path.encode() for path in paths]
        if not held:
            return
        names = <const char **> calloc(len(held), sizeof(char *))
        if names == NULL:
            raise MemoryError
        for i in range(len(held)):
            names[i] = held[i]
        why[0] = 0
        relics_open(&self.relics, names, len(held), why, sizeof(why))
        free(names)
        self.relics_why = why.decode("utf-8", "replace")

    cdef int _make_shard(self, int i, list flexible, dict limits) except -1:
        cdef Shard *shard = <Shard *> lines(sizeof(Shard))
        cdef char why[LOG_WHY]
        cdef int rc, k
        if shard == NULL:
            raise MemoryError
        self.shards[i] = shard
        shard.index = i
        shard.n = self.n
        shard.peers = self.shards
        shard.control_fd = self.event
        shard.control_awake = self.awake
        shard.out = self.boxes + i * (self.n + 1)
        shard.inbox = <MailBox **> calloc(self.n + 1, sizeof(MailBox *))
        if shard.inbox == NULL:
            raise MemoryError
        for k in range(self.n + 1):
            shard.inbox[k] = self.boxes[k * (self.n + 1) + i]
        for k in range(128):
            shard.flexible_from[k] = flexible[k]
        shard.limits.request_bytes_max = limits["request_bytes_max"]
        shard.limits.requests_per_conn_max = limits["requests_per_conn_max"]
        shard.limits.bytes_per_conn_max = limits["bytes_per_conn_max"]
        shard.limits.answers_per_conn_max = limits["answers_per_conn_max"]
        shard.limits.conns_max = limits["conns_max"]
        shard.limits.idle_ms = limits["idle_ms"]
        shard.limits.stuck_ms = limits["stuck_ms"]
        shard.limits.fetch_bytes_max = limits["fetch_bytes_max"]
        shard.limits.sessions_max = limits["sessions_max"]
        shard.pool = self.pool
        shard.quotas = self.quotas
        if shard_init(shard, &self.config) < 0:
            raise MemoryError
        rc = ring_open(&shard.ring, &self.ring_config, why, sizeof(why))
        if rc < 0:
            raise OSError(-rc, why.decode("utf-8", "replace"))
        shard.home = home_open(shard.ring)
        if shard.home == NULL:
            raise MemoryError
        self.engine = ring_why(shard.ring).decode()
        return 0

    def __dealloc__(self):
        cdef int i
        if self.shards != NULL:
            for i in range(self.n):
                if self.shards[i] != NULL:
                    free(self.shards[i].inbox)
                    free(self.shards[i])
        if self.pool != NULL:
            pool_close(self.pool)
        if self.boxes != NULL:
            for i in range((self.n + 1) * (self.n + 1)):
                if self.boxes[i] != NULL:
                    mail_free(self.boxes[i])
                    free(self.boxes[i])
        free(self.shards)
        free(self.stores)
        free(self.boxes)
        free(self.awake)
        free(self.locks)
        quota_free(self.quotas)
        if self.event >= 0:
            close(self.event)

    def run_shard(self, int i, object ready) -> None:
        """The life of shard i's thread. Calls ready(None) when it runs, or ready(text) when it can't and returns."""
        cdef Shard *shard = self.shards[i]
        cdef char why[LOG_WHY]
        cdef int rc
        cdef StoreConfig config = self.store_config
        cdef object arena = self.arenas[i]
        cdef bytes held = arena.encode() if arena is not None else b""
        config.arena_path = PyBytes_AS_STRING(held) if arena is not None else NULL
        config.ring = shard.ring
        config.home = shard.home
        config.shard = i
        why[0] = 0
        rc = ring_start(shard.ring)
        if rc < 0:
            ready(f"the ring of shard {i} did not start: {OSError(-rc, 'ring')}")
            return
        rc = store_open(&shard.store, &config, why, sizeof(why))
        if rc < 0:
            ready(f"the memory of shard {i} could not be had: {why.decode('utf-8', 'replace')}")
            return
        self.stores[i] = shard.store
        ready(None)
        with nogil:
            shard_run(shard, &self.config)
            store_close(shard.store)
            self.stores[i] = NULL
            home_close(shard.home)
            ring_close(shard.ring)
            shard_free(shard)

    # ---- what comes from the shards ----

    def fileno(self) -> int:
        """An eventfd that is readable when `poll` has something."""
        return self.event

    def poll(self) -> list:
        """What the shards handed over: (REQUEST, token, api_key, version, correlation_id, client_id or None, peer, listener, body),
        (DONE, cookie, result tuple), (APPENDED, cookie, error, base_offset), (LOG, level, text) or (TXN_CHECK, token, transactional id,
        producer id, epoch, add, partitions: list of (topic id, topic, partition))."""
        cdef MailItem item
        cdef MailBox *box
        cdef uint64_t count
        cdef int i
        cdef list found = []
        while read(self.event, &count, 8) > 0:
            pass
        set_seq(self.awake, 0)
        for i in range(self.n):
            box = self.boxes[i * (self.n + 1) + self.n]
            while mail_take(box, &item):
                if item.kind == MAIL_REQUEST:
                    found.append(self._request(<Request *> item.what))
                elif item.kind == MAIL_COMMAND_DONE:
                    found.append(self._done(<Command *> item.what))
                elif item.kind == MAIL_TXN_CHECK:
                    found.append(self._check(<TxnCheck *> item.what))
                elif item.kind == MAIL_LOG:
                    found.append((LOG, (<LogLine *> item.what).level, (<LogLine *> item.what).text.decode("utf-8", "replace")))
                    free(item.what)
        return found

    cdef tuple _request(self, Request *r):
        cdef char peer[PEER_MAX]
        peer_name(r.conn.fd, peer, sizeof(peer))
        client_id = None
        if r.client_id_length >= 0:
            client_id = (<const char *> r.client_id)[:r.client_id_length].decode("utf-8", "replace")
        return (REQUEST, <uint64_t> <size_t> r, r.api_key, r.version, r.correlation, client_id, peer.decode("utf-8", "replace"),
                r.conn.listener, PyBytes_FromStringAndSize(<const char *> r.body.p, reader_left(&r.body)))

    cdef tuple _check(self, TxnCheck *c):
        cdef TxnCheckPart *part
        cdef list parts = []
        cdef int32_t i
        for i in range(c.n):
            part = &c.parts[i]
            parts.append((PyBytes_FromStringAndSize(<const char *> part.topic_id, 16),
                          part.name[:part.name_length].decode("utf-8", "replace"), part.index))
        found = (TXN_CHECK, c.token * SHARDS_MAX + c.shard, (<const char *> c.id)[:c.id_length].decode("utf-8", "replace"),
                 c.producer_id, c.producer_epoch, bool(c.add), parts)
        free(c)
        return found

    cdef tuple _done(self, Command *c):
        cdef tuple result = ()
        if c.kind == CMD_APPEND:
            result = (APPENDED, c.cookie, c.append.error, c.append.base_offset)
            free(c.data)
            free(c)
            return result
        if c.kind == CMD_OPEN:
            result = (c.log.error, c.log.why.decode("utf-8", "replace"), bool(c.log.recovered), c.log.lost_bytes, c.log.arena_bytes,
                      <uint64_t> <size_t> c.log.part)
        elif c.kind == CMD_CONTROL:
            result = (c.control.error, c.control.why.decode("utf-8", "replace"), c.control.result)
            if c.control.data != NULL:
                result += (PyBytes_FromStringAndSize(<const char *> c.control.data, c.control.length),)
                free(c.control.data)
        elif c.kind == CMD_READ:
            data = PyBytes_FromStringAndSize(<const char *> c.data, c.data_length) if c.data_length else b""
            result = (c.read.error, data, c.read.log_start, c.read.last_stable, c.read.high_watermark)
        elif c.kind == CMD_FIND_TIME:
            result = (c.time.error, c.time.offset, c.time.found_ms)
        else:
            result = (c.error,)
        cookie = c.cookie
        free(c.path)
        free(c.data)
        free(c)
        return (DONE, cookie, result)

    # ---- answers ----

    def respond(self, uint64_t token, bytes body, int throttle_ms, StandingAnswer standing=None) -> bool:
        """Answers a request: the body after the response header. Every token is answered exactly once, here or by `close`.
        throttle_ms: how long its connection is not read from. standing: stands for the same request from now on. Like all that sends,
        returns True: there is something to `flush`."""
        return self._reply(token, body, 0, throttle_ms, standing)

    def txn_checked(self, uint64_t token, list errors) -> bool:
        """Answers a TXN_CHECK: an error code for each of its partitions, in order."""
        cdef int32_t i, n = len(errors)
        cdef TxnVerdict *verdict = <TxnVerdict *> malloc(sizeof(TxnVerdict) + <size_t> n * 2)
        if verdict == NULL:
            raise MemoryError
        verdict.token = token // SHARDS_MAX
        verdict.n = n
        for i in range(n):
            verdict.errors[i] = errors[i]
        return self._send(token % SHARDS_MAX, MAIL_TXN_CHECKED, 0, verdict)

    def close(self, uint64_t token, bytes why) -> bool:
        """Closes the request's connection; `why` goes to the log."""
        return self._reply(token, why, 1, 0, None)

    cdef bint _reply(self, uint64_t token, bytes body, uint32_t number, int throttle_ms, StandingAnswer standing) except -1:
        cdef Request *r = <Request *> <size_t> token
        cdef int to = r.shard.index
        cdef Py_ssize_t n = PyBytes_GET_SIZE(body)
        cdef Reply *reply = <Reply *> malloc(sizeof(Reply) + n + 1)
        if reply == NULL:
            raise MemoryError
        reply.request = r
        reply.standing = NULL if standing is None else standing.hold()
        reply.throttle_ms = throttle_ms
        reply.length = <uint32_t> n
        memcpy(reply.data, PyBytes_AS_STRING(body), n)
        reply.data[n] = 0
        return self._send(to, MAIL_REPLY, number, reply)

    cdef bint _send(self, int shard, uint32_t kind, uint32_t number, void *what) noexcept:
        """Waking a shard that shares its core with this thread costs two changes of threads: it is done once for all that is sent in a
        turn."""
        mail_send(self.boxes[self.n * (self.n + 1) + shard], kind, number, what)
        self.unsent |= <uint64_t> 1 << shard
        return True

    def flush(self) -> bool:
        """Moves on what was sent, as far as there is room; True when some is left."""
        cdef uint64_t left = 0
        cdef int i
        for i in range(self.n):
            if self.unsent >> i & 1:
                if mail_flush(self.boxes[self.n * (self.n + 1) + i]):
                    left |= <uint64_t> 1 << i
                shard_wake(self.shards[i])
        self.unsent = left
        return left != 0

    # ---- commands: each comes back from `poll` as (DONE, cookie, result) ----

    cdef Command *_command(self, int kind, int64_t cookie) except NULL:
        cdef Command *c = <Command *> calloc(1, sizeof(Command))
        if c == NULL:
            raise MemoryError
        c.kind = kind
        c.cookie = cookie
        return c

    def open_partition(self, int64_t cookie, int shard, bytes path, bytes topic_id, int index, int leader_epoch, bint create, bint clean,
                       bint together, tuple settings) -> bool:
        """Result: (error, why, recovered, lost_bytes, arena_bytes, handle)."""
        cdef Command *c = self._command(CMD_OPEN, cookie)
        c.path = strdup(path)
        c.log.path = c.path
        memcpy(c.log.topic_id, PyBytes_AS_STRING(topic_id), 16)
        c.log.index = index
        c.log.leader_epoch = leader_epoch
        c.log.create = create
        c.log.clean = clean
        c.log.together = together
        fill_settings(&c.log.settings, settings)
        return self._send(shard, MAIL_COMMAND, 0, c)

    def control(self, int64_t cookie, uint64_t handle, int kind, int64_t number, tuple settings, int64_t end=0) -> bool:
        """kind: LogCtlKind. settings: for CTL_SETTINGS, else (). end: for CTL_SWAP. Result: (error, why, number), with CTL_PRODUCERS a
        snapshot too."""
        cdef Command *c = self._command(CMD_CONTROL, cookie)
        c.control.part = <Partition *> <size_t> handle
        c.control.kind = kind
        c.control.number = number
        c.control.end = end
        if settings:
            fill_settings(&c.control.settings, settings)
        return self._send(c.control.part.owner, MAIL_COMMAND, 0, c)

    def append(self, int64_t cookie, uint64_t handle, bytes batch, int acks, int txn_version=0) -> bool:
        """One whole valid batch; txn_version: of a transaction that it ends. Comes back as APPENDED. Raises ValueError when it is not
        a batch."""
        cdef Command *c = self._command(CMD_APPEND, cookie)
        cdef size_t n = PyBytes_GET_SIZE(batch)
        c.data = <uint8_t *> malloc(n)
        if c.data == NULL:
            free(c)
            raise MemoryError
        memcpy(c.data, PyBytes_AS_STRING(batch), n)
        if batch_peek(c.data, n, &c.append.info) != 0 or <size_t> c.append.info.size != n:
            free(c.data)
            free(c)
            raise ValueError("not one whole record batch")
        c.append.part = <Partition *> <size_t> handle
        c.append.data = c.data
        c.append.acks = acks
        c.append.txn_version = txn_version
        c.append.append_time = -1
        return self._send(c.append.part.owner, MAIL_COMMAND, 0, c)

    def read(self, int64_t cookie, uint64_t handle, int64_t offset, int max_bytes, bint to_log_end) -> bool:
        """Result: (error, data, log_start, last_stable, high_watermark)."""
        cdef Command *c = self._command(CMD_READ, cookie)
        c.read.part = <Partition *> <size_t> handle
        c.read.offset = offset
        c.read.bytes_max = max_bytes
        c.read.whole_first = True
        c.read.to_log_end = to_log_end
        return self._send(c.read.part.owner, MAIL_COMMAND, 0, c)

    def find_time(self, int64_t cookie, uint64_t handle, int64_t timestamp) -> bool:
        """Result: (error, offset, timestamp)."""
        cdef Command *c = self._command(CMD_FIND_TIME, cookie)
        c.time.part = <Partition *> <size_t> handle
        c.time.timestamp = timestamp
        return self._send(c.time.part.owner, MAIL_COMMAND, 0, c)

    def publish(self, int64_t cookie, int shard, bytes name, bytes topic_id, list handles, tuple rules, bint internal) -> bool:
        """handles: of the partitions in order, 0 where one isn't open. Result: (error,)."""
        cdef Command *c = self._command(CMD_PUBLISH, cookie)
        cdef int32_t i, n = len(handles)
        cdef Topic *topic = topic_new(n)
        if topic == NULL or len(name) > TOPIC_NAME_MAX:
            free(c)
            raise MemoryError
        memcpy(topic.id, PyBytes_AS_STRING(topic_id), 16)
        topic.name_length = len(name)
        memcpy(topic.name, PyBytes_AS_STRING(name), len(name))
        topic.internal = internal
        fill_rules(&topic.rules, rules)
        for i in range(n):
            topic.parts[i] = <Partition *> <size_t> <uint64_t> handles[i]
        c.topic = topic
        return self._send(shard, MAIL_COMMAND, 0, c)

    def unpublish(self, int64_t cookie, int shard, bytes topic_id) -> bool:
        """Result: (error,), when the shard has no request left that holds the topic's partitions."""
        cdef Command *c = self._command(CMD_UNPUBLISH, cookie)
        memcpy(c.id, PyBytes_AS_STRING(topic_id), 16)
        return self._send(shard, MAIL_COMMAND, 0, c)

    def free_partition(self, int64_t cookie, uint64_t handle) -> bool:
        """After CTL_CLOSE or CTL_DELETE, when no shard knows the topic."""
        cdef Command *c = self._command(CMD_FREE, cookie)
        c.part = <Partition *> <size_t> handle
        return self._send(c.part.owner, MAIL_COMMAND, 0, c)

    def listen(self, int64_t cookie, int shard, int fd, int listener) -> bool:
        """The shard accepts on fd and deals the connections out. The descriptor stays the caller's."""
        cdef Command *c = self._command(CMD_LISTEN, cookie)
        c.number = fd
        c.index = listener
        return self._send(shard, MAIL_COMMAND, 0, c)

    def unlisten(self, int64_t cookie, int shard) -> bool:
        return self._send(shard, MAIL_COMMAND, 0, self._command(CMD_UNLISTEN, cookie))

    def drain(self, int64_t cookie, int shard) -> bool:
        """Done when the shard has no connection any more."""
        return self._send(shard, MAIL_COMMAND, 0, self._command(CMD_DRAIN, cookie))

    def stop(self, int64_t cookie, int shard) -> bool:
        """Ends the shard's thread. Every partition of its must be closed."""
        return self._send(shard, MAIL_COMMAND, 0, self._command(CMD_STOP, cookie))

    def drop_relics(self):
        """The arenas of dead processes go: every partition they hold data of was opened."""
        if self.relics != NULL:
            relics_drop(self.relics)
            self.relics = NULL

    def relics_bytes(self) -> int:
        return relics_bytes(self.relics) if self.relics != NULL else 0

    # ---- quotas ----

    def set_quotas(self, tuple default, list named):
        """Bounds of produce bytes, fetch bytes and request percentage, a second each: (float or None, whether all share it) three times,
        for clients that are not named, and by client id (bytes). Raises MemoryError."""
        cdef double bounds[3]
        cdef bint shared[3]
        cdef bint failed = False
        fill_bounds(bounds, shared, default)
        quota_begin(self.quotas, bounds, shared)
        try:
            for name, limits in named:
                fill_bounds(bounds, shared, limits)
                if quota_name(self.quotas, <const uint8_t *> PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), bounds, shared) < 0:
                    failed = True
        finally:
            quota_end(self.quotas)
        if failed:
            raise MemoryError

    def requests_counted(self) -> bool:
        """Whether some client's time is bounded."""
        return quota_on(self.quotas, QUOTA_REQUEST)

    def count_request(self, bytes client, int64_t spent_ns, int64_t now_ns) -> int:
        """Counts time that a client's request took; milliseconds that it must wait."""
        return quota_record(self.quotas, QUOTA_REQUEST, <const uint8_t *> PyBytes_AS_STRING(client), PyBytes_GET_SIZE(client),
                            <double> spent_ns, now_ns // 1000000)

    def expire_producers(self, int64_t after_ms):
        """How long a producer id may be idle before a partition forgets it, from now on."""
        cdef int i
        self.store_config.producer_expires_ms = after_ms
        for i in range(self.n):
            if self.stores[i] != NULL:
                store_expire_producers(self.stores[i], after_ms)

    # ---- what can be looked at any time ----

    def positions(self, uint64_t handle) -> tuple:
        """(log_start, last_stable, high_watermark, log_end, leader_epoch, offline, bytes), read without a round trip."""
        cdef Partition *p = <Partition *> <size_t> handle
        return (position_get(&p.at.log_start), position_get(&p.at.last_stable), position_get(&p.at.high_watermark),
                position_get(&p.at.log_end), position_get(&p.at.leader_epoch), position_get(&p.at.offline), position_get(&p.at.bytes))

    def stats(self) -> list:
        """One dict of int by name for each shard."""
        cdef int i
        cdef RingStats rings
        cdef StoreStats stores
        cdef Counters *counters
        cdef list all_of = []
        for i in range(self.n):
            shard = {}
            counters = &self.shards[i].counters
            shard.update(counters[0])
            if self.stores[i] != NULL:
                ring_stats(self.shards[i].ring, &rings)
                shard.update({f"ring_{name}": value for name, value in (<object> rings).items()})
                store_stats(self.stores[i], &stores)
                shard.update({f"store_{name}": value for name, value in (<object> stores).items()})
            all_of.append(shard)
        return all_of


cdef int fill_settings(LogSettings *out, tuple values) except -1:
    (out.segment_bytes, out.segment_ms, out.segment_jitter_ms, out.index_interval_bytes, out.segment_index_bytes, out.flush_messages,
     out.flush_ms, out.write_caching, out.disk_reserve, out.verify_reads, out.recycle_bytes) = values
    return 0


cdef int fill_bounds(double *bounds, bint *shared, tuple limits) except -1:
    cdef int kind
    for kind in range(<int> QUOTA_KINDS):
        bound, together = limits[kind]
        bounds[kind] = -1.0 if bound is None else bound
        shared[kind] = together
    bounds[<int> QUOTA_REQUEST] *= 1e7    # per cent of a second, in nanoseconds
    return 0


cdef int fill_rules(BatchRules *out, tuple values) except -1:
    (out.size_max, out.before_max_ms, out.after_max_ms, out.log_append_time, out.keys_required, out.look_inside, out.codec, out.level,
     out.inflate_max) = values
    return 0
