"""Both engines of the ring keep one contract (native/ring.pxd); io_uring also without the features that a kernel may lack."""

import errno
import fcntl
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from fastlog.native.driver import Driver

SECOND = 1_000_000_000
ALL_FEATURES = 63
ENGINES: dict[str, dict[str, Any]] = {
    "uring": {"kind": "uring"},
    "uring-plain": {"kind": "uring", "without": ALL_FEATURES},
    "uring-no-buffers": {"kind": "uring", "without": 16},
    "epoll": {"kind": "epoll"},
}
Make = Callable[..., Any]
Completion = tuple[int, int, bool, bytes | None]


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes started rings of one engine, and closes them."""
    engine = ENGINES[request.param]
    with ExitStack() as stack:

        def make_ring(**settings: Any) -> Any:
            try:
                ring = Driver(**engine, **settings)
            except OSError as refused:
                if engine["kind"] == "uring" and refused.errno in {errno.ENOSYS, errno.EPERM}:
                    pytest.skip(f"no io_uring here: {refused}")
                raise
            stack.callback(ring.close)
            ring.start()
            return ring

        yield make_ring


@pytest.fixture
def ring(make: Make) -> Any:
    return make()


def drain(ring: Any, count: int, seconds: float = 20) -> list[Completion]:
    """Waits for `count` completions, and checks that no more come with them."""
    taken: list[Completion] = []
    deadline = time.monotonic() + seconds
    while len(taken) < count:
        assert time.monotonic() < deadline, f"{len(taken)} of {count}: {taken[-3:]}"
        taken += ring.wait(SECOND)
    assert len(taken) == count
    return taken


def one(ring: Any) -> Completion:
    return drain(ring, 1)[0]


def descriptors() -> list[int]:
    return [int(path.name) for path in Path("/proc/self/fd").iterdir()]


def tcp_pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(listener.getsockname())
    select.select([listener], [], [], 10)
    server, _ = listener.accept()
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setblocking(False)
    return client, server


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as made:
        made.setblocking(False)
        yield made


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest, listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = tcp_pair(listener) if request.param == "tcp" else socket.socketpair()
    near.setblocking(False)
    with near, far:
        far.settimeout(10)
        yield near, far


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"needs 4,096 descriptors; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- opening


def test_says_what_it_is(make: Make) -> None:
    ring = make()
    assert ring.kind in {"uring", "epoll"}
    assert ring.why.startswith("io_uring, as asked" if ring.kind == "uring" else "epoll, as asked")


def test_auto_takes_an_engine_that_works() -> None:
    ring = Driver("auto")
    ring.start()
    assert ring.kind in {"uring", "epoll"}
    ring.wake()
    assert ring.wait(SECOND) == []
    ring.close()


def test_refuses_nonsense() -> None:
    with pytest.raises(OSError, match="entries") as refused:
        Driver("epoll", entries=0)
    assert refused.value.errno == errno.EINVAL


def test_closed_without_being_started() -> None:
    for kind in ("uring", "epoll"):
        Driver(kind).close()


def test_made_here_and_run_by_another_thread(make: Make, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    seen: list[Completion] = []
    settings = ENGINES["epoll"] if make().kind == "epoll" else ENGINES["uring"]
    ring = Driver(**settings)

    def run() -> None:
        ring.start()
        ring.recv(near.fileno(), 10)
        seen.append(one(ring))
        ring.close()

    thread = threading.Thread(target=run)
    thread.start()
    far.send(b"hello")
    thread.join(10)
    assert seen[0][1:] == (5, False, b"hello")


def test_the_lock_file_is_held_by_an_io_uring_until_its_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    mine = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(mine, fcntl.LOCK_EX)
    try:
        ring = Driver("uring", lock_fd=mine)
    except OSError as refused:
        pytest.skip(f"no io_uring here: {refused}")
    os.close(mine)
    with path.open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ring.close()
        deadline = time.monotonic() + 10
        while True:  # the kernel takes a ring down in the background
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.01)


@pytest.mark.root("takes an identity of its own: locked memory is counted over all processes of a user")
def test_shrinks_when_little_memory_may_be_locked() -> None:
    """An ordinary user's RLIMIT_MEMLOCK, here far below Debian's 8 MiB, counts the queues of newer kernels."""
    program = """
import os, resource, socket
from fastlog.native.driver import Driver
os.setuid(100_000 + os.getpid())
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
try:
    rings = [Driver("uring", entries=4096) for _ in range(2)]
except PermissionError:
    raise SystemExit(77)
for ring in rings:
    ring.start()
    near, far = socket.socketpair()
    for _ in range(1000):
        ring.recv_any(near.fileno())
    far.send(b"x")
    assert [c[1] for c in ring.wait(10**9)] == [1]
    ring.close()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("no io_uring here")
    assert done.returncode == 0, done.stderr


def test_takes_epoll_where_io_uring_is_forbidden() -> None:
    """As in most containers: a seccomp filter that answers io_uring_setup (425 everywhere) with EPERM, and the reason is told."""
    program = """
import ctypes, struct
from fastlog.native.driver import Driver
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]  # load nr; if 425: EPERM; else allow
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
prog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, prog) == 0
ring = Driver("auto")
print(ring.why)
try:
    Driver("uring")
except PermissionError as refused:
    print(refused)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    chosen, refused = done.stdout.splitlines()
    assert chosen == "epoll, io_uring_setup: Operation not permitted: file operations on 2 threads"
    assert "io_uring_setup: Operation not permitted" in refused


# ---- waiting and waking


def test_waits_as_long_as_it_was_told(ring: Any) -> None:
    before = time.monotonic()
    assert ring.wait(0) == []
    assert time.monotonic() - before < 5
    before = time.monotonic()
    while time.monotonic() - before < 0.08:
        assert ring.wait(80_000_000) == []
    assert time.monotonic() - before < 5


def test_a_wake_before_the_wait_is_not_lost(ring: Any) -> None:
    ring.wait(0)
    for _ in range(3):
        ring.wake()
    before = time.monotonic()
    assert ring.wait(10 * SECOND) == []
    assert time.monotonic() - before < 5
    assert ring.stats["wakes"] == 1


def test_woken_by_another_thread_every_time(ring: Any) -> None:
    """A hand-off of 2,000 messages: the ring sleeps without limit, so one lost wake-up would hang it."""
    messages: list[int] = []
    room = threading.Semaphore(3)

    def send() -> None:
        for number in range(2000):
            assert room.acquire(timeout=30)
            messages.append(number)
            ring.wake()

    sender = threading.Thread(target=send)
    sender.start()
    seen = 0
    while seen < 2000:
        while seen < len(messages):
            seen += 1
            room.release()
        if seen < 2000:
            ring.wait(-1)
    sender.join()
    assert ring.stats["wakes"] <= 2000


# ---- sockets


def test_receives(ring: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    first = ring.recv(near.fileno(), 3)
    assert ring.wait(0) == []
    far.send(b"abcdef")
    assert one(ring) == (first, 3, False, b"abc")
    second = ring.recv(near.fileno(), 100)
    assert one(ring) == (second, 3, False, b"def")
    third = ring.recv_any(near.fileno())
    ring.wait(0)
    far.send(b"ghi")
    assert one(ring) == (third, 3, False, b"ghi")


def test_the_end_of_a_stream_is_zero_bytes(ring: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    far.send(b"last")
    far.close()
    ring.recv_any(near.fileno())
    assert one(ring)[3] == b"last"
    ring.recv_any(near.fileno())
    assert one(ring)[1] == 0
    ring.recv(near.fileno(), 10)
    assert one(ring)[1] == 0


def test_a_reset_connection_is_an_error(ring: Any, listener: socket.socket) -> None:
    near, far = tcp_pair(listener)
    ring.recv_any(near.fileno())
    ring.wait(0)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    assert one(ring)[1] == -errno.ECONNRESET
    ring.sendmsg(near.fileno(), b"x")
    assert one(ring)[1] == -errno.EPIPE  # and no signal
    near.close()


def test_a_full_socket_takes_the_rest_when_it_is_read(ring: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    payload = os.urandom(8 << 20)
    sent = 0
    ring.sendmsg(near.fileno(), payload[:1000], payload[1000:])
    received = bytearray()
    far.settimeout(0.05)
    while len(received) < len(payload):
        for _token, res, _more, _data in ring.wait(1_000_000):
            assert res > 0
            sent += res
            if sent < len(payload):
                ring.sendmsg(near.fileno(), payload[sent:])
        with suppress(TimeoutError):
            received += far.recv(1 << 20)
    assert received == payload
    if sent < len(payload):
        assert sent + one(ring)[1] == len(payload)


def test_bad_descriptors_are_errors(ring: Any, tmp_path: Path) -> None:
    bad = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    os.close(bad)
    tokens = [ring.recv(bad, 1), ring.recv_any(bad), ring.sendmsg(bad, b"x"), ring.accept(bad), ring.fdatasync(bad), ring.read(bad, 0, 1)]
    tokens.append(ring.recv_any(-1))
    results = drain(ring, len(tokens))
    assert sorted(t for t, *_ in results) == tokens
    assert {res for _, res, _, _ in results} == {-errno.EBADF}
    assert not any(more for _, _, more, _ in results)


def test_a_descriptor_given_out_again_is_a_new_one(ring: Any) -> None:
    """Receiving on a closed connection's successor with the same number."""
    for round_ in range(20):
        near, far = socket.socketpair()
        number = near.fileno()
        token = ring.recv_any(number)
        ring.wait(0)
        if round_ % 2:
            ring.cancel(token)
            assert one(ring)[1] == -errno.ECANCELED
        else:
            far.send(b"%d" % round_)
            assert one(ring)[3] == b"%d" % round_
        near.close()
        far.close()


def stick(ring: Any, near: socket.socket) -> tuple[int, int]:
    """Sends until the peer's and our own buffers are full: the token of the send that is stuck, and what was sent before."""
    sent = 0
    while True:
        token = ring.sendmsg(near.fileno(), b"\0" * (1 << 20))
        results = ring.wait(50_000_000) or ring.wait(50_000_000)
        if not results:
            return token, sent
        sent += results[0][1]


def test_both_directions_at_once(ring: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    receiving = ring.recv_any(near.fileno())
    sending, sent = stick(ring, near)
    far.send(b"in the meantime")
    results = {}
    while receiving not in results:
        results.update({token: (res, data) for token, res, _, data in ring.wait(10 * SECOND)})
    assert results[receiving] == (15, b"in the meantime")
    got = 0
    while got < sent:
        got += len(far.recv(1 << 20))
    if sending not in results:
        results[sending] = (one(ring)[1], None)
    assert results[sending][0] > 0


def test_accepts_until_cancelled(ring: Any, listener: socket.socket) -> None:
    token = ring.accept(listener.fileno())
    for count in (1, 70, 30):
        clients = [socket.create_connection(listener.getsockname()) for _ in range(count)]
        results = drain(ring, count)
        assert all(t == token and more for t, _, more, _ in results)
        for _, fd, _, _ in results:
            assert os.get_inheritable(fd) is False
            assert os.get_blocking(fd) is False
            os.close(fd)
        for client in clients:
            client.close()
    ring.cancel(token)
    assert one(ring) == (token, -errno.ECANCELED, False, None)


def test_accept_ends_without_descriptors_and_can_be_started_again(ring: Any, listener: socket.socket) -> None:
    client = socket.socket()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some are free at first: accept4 takes a descriptor before it looks for a connection, and with none would end before there is one.
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 4, hard))
    ring.accept(listener.fileno())  # io_uring keeps the limit that it finds here
    assert ring.wait(0) == []
    fillers = []
    try:
        while True:
            try:
                fillers.append(os.dup(0))
            except OSError:
                break
        client.connect(listener.getsockname())
        _, res, more, _ = one(ring)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)
    assert (res, more) == (-errno.EMFILE, False)
    ring.accept(listener.fileno())
    _, fd, more, _ = one(ring)
    assert fd >= 0
    assert more
    os.close(fd)
    client.close()


def test_accept_on_something_else_is_an_error(ring: Any, pair: tuple[socket.socket, socket.socket], listener: socket.socket) -> None:
    ring.accept(pair[0].fileno())
    assert one(ring)[1:3] == (-errno.EINVAL, False)
    token = ring.accept(listener.fileno())
    with socket.create_connection(listener.getsockname()):
        got, fd, more, _ = one(ring)
        assert (got, more) == (token, True)
        os.close(fd)


def test_a_thousand_connections_share_few_buffers(make: Make, listener: socket.socket, many_descriptors: None) -> None:
    ring = make(recv_buffers=16, recv_buffer_bytes=2048)
    pairs = [tcp_pair(listener) for _ in range(1000)]
    texts = {}
    for number, (near, _) in enumerate(pairs):
        texts[ring.recv_any(near.fileno())] = b"%d!" % number * 100
    assert ring.wait(0) == []
    for (_, far), text in zip(pairs, texts.values(), strict=True):
        far.send(text)
    assert {token: data for token, _, _, data in drain(ring, 1000)} == texts
    for near, far in pairs:
        near.close()
        far.close()


# ---- files


def test_writes_and_reads(ring: Any, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    ring.write(fd, 0, b"a" * 4096, b"b" * 4096, b"c", rw_flags=os.RWF_DSYNC)
    assert one(ring)[1] == 8193
    ring.write(fd, 8193, b"d" * 10)
    assert one(ring)[1] == 10
    ring.fdatasync(fd)
    assert one(ring)[1] == 0
    ring.read(fd, 4000, 4300, parts=4)
    assert one(ring)[3] == b"a" * 96 + b"b" * 4096 + b"c" + b"d" * 10  # short: the file ends here
    ring.read(fd, 9000, 10)
    assert one(ring)[1] == 0
    os.close(fd)
    assert (tmp_path / "file").stat().st_size == 8203


def test_writes_directly(ring: Any, tmp_path: Path) -> None:
    try:
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    except OSError:
        pytest.skip("this file system has no O_DIRECT")
    blocks = [os.urandom(65536) for _ in range(32)]
    for number, block in enumerate(blocks):
        ring.write(fd, number * 65536, block, rw_flags=os.RWF_DSYNC)
    assert {res for _, res, _, _ in drain(ring, 32)} == {65536}
    for number in range(32):
        ring.read(fd, number * 65536, 65536)
    assert sorted(d for _, _, _, d in drain(ring, 32) if d) == sorted(blocks)
    ring.write(fd, 1, b"x")
    assert one(ring)[1] == -errno.EINVAL
    os.close(fd)


# ---- cancelling and closing


def test_cancels_what_waits(ring: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    tokens = [ring.recv_any(near.fileno()), ring.recv(far.fileno(), 5)]
    assert ring.wait(0) == []
    for token in tokens:
        ring.cancel(token)
        ring.cancel(token)
    assert sorted(drain(ring, 2)) == [(token, -errno.ECANCELED, False, None) for token in tokens]
    assert ring.wait(0) == []
    far.send(b"still works")
    ring.recv_any(near.fileno())
    assert one(ring)[3] == b"still works"


def test_cancels_what_was_submitted_a_moment_ago(ring: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    token = ring.recv_any(pair[0].fileno())
    ring.cancel(token)
    assert one(ring) == (token, -errno.ECANCELED, False, None)


def test_cancels_a_send_that_is_stuck(ring: Any) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        token, _ = stick(ring, near)
        ring.cancel(token)
        assert one(ring) == (token, -errno.ECANCELED, False, None)


def test_cancelled_file_operations_end_once(make: Make, tmp_path: Path) -> None:
    ring = make(io_threads=1)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    tokens = [ring.write(fd, n * 65536, b"x" * 65536, rw_flags=os.RWF_DSYNC) for n in range(50)]
    for token in tokens:
        ring.cancel(token)
    results = drain(ring, 50)
    assert sorted(token for token, *_ in results) == tokens
    assert {res for _, res, _, _ in results} <= {65536, -errno.ECANCELED}
    os.close(fd)


def test_closes_with_everything_under_way(make: Make, pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    before = len(descriptors())
    ring = make(entries=16)
    near, far = pair
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    ring.accept(listener.fileno())
    ring.recv_any(near.fileno())
    ring.recv(far.fileno(), 100)
    ring.wait(0)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(5)]
    for number in range(200):
        ring.write(fd, number * 4096, b"y" * 4096, rw_flags=os.RWF_DSYNC)
    ring.close()
    for client in clients:
        client.close()
    os.close(fd)
    deadline = time.monotonic() + 10
    while len(descriptors()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(descriptors()) <= before
    listener.close()


# ---- many


def test_ten_thousand_submissions_at_once(make: Make, tmp_path: Path) -> None:
    """More than both queues hold: the rest waits its turn, and no completion is lost."""
    ring = make(entries=64)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    tokens = {ring.write(fd, number * 2, b"%02d" % (number % 100)): number for number in range(10_000)}
    if ring.kind == "uring":  # epoll's threads may be as fast as this loop
        assert ring.stats["backlog_max"] > 1000
    results = drain(ring, 10_000)
    assert {token for token, *_ in results} == set(tokens)
    assert {res for _, res, _, _ in results} == {2}
    assert os.pread(fd, 30_000, 0) == b"".join(b"%02d" % (n % 100) for n in range(10_000))
    os.close(fd)


def test_ten_thousand_cancellations_at_once(make: Make) -> None:
    ring = make(entries=64)
    near, far = socket.socketpair()
    tokens = [ring.recv(near.fileno(), 1) for _ in range(10_000)]
    ring.wait(0)
    for token in tokens:
        ring.cancel(token)
    results = drain(ring, 10_000)
    assert sorted(token for token, *_ in results) == tokens
    assert {res for _, res, _, _ in results} == {-errno.ECANCELED}
    near.close()
    far.close()


@pytest.mark.parametrize(("connections", "size", "rounds"), [(1, 100, 500), (32, 5000, 30), (4, 300_000, 10)])
def test_ping_pong(ring: Any, listener: socket.socket, connections: int, size: int, rounds: int) -> None:
    pairs = [tcp_pair(listener) for _ in range(connections)]
    ring.ping_pong([(near.fileno(), far.fileno()) for near, far in pairs], size, rounds)
    while ring.wait(0):
        pass
    for near, far in pairs:
        near.close()
        far.close()


def test_counts(ring: Any, pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    before = ring.stats
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    ring.write(fd, 0, b"x")
    ring.sendmsg(pair[0].fileno(), b"x")
    drain(ring, 2)
    after = ring.stats
    assert after["submitted"] - before["submitted"] == 2
    assert after["completed"] - before["completed"] == 2
    assert after["punted"] - before["punted"] == (1 if ring.kind == "epoll" else 0)
    os.close(fd)
