"""A machine with one disk that a broker's storage lives on: processes start, work, are killed; then the power goes."""

# ruff: noqa: PTH105, PTH108, PTH112, PTH115
from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastlog._core import DiskSync
from fastlog.native.logtool import LocalLog, LocalStore, LogError
from fastlog.native.tape import Tape
from fastlog.storage import files
from fastlog.storage.epochs import load_epochs, save_epochs
from tests.storage.build import batch, count_of, split
from tests.storage.crash import compaction, relay, transactions
from tests.storage.crash.disk import Disk, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fastlog.native.logtool import Pending
    from tests.storage.crash.model import Model

SECTOR = 512
EXACT = 4096
CLOSED = 3
STORAGE_ERROR = 56
LATER = 4_102_444_800_000
"""Timestamp of all batches: producers must not expire."""


class Violation(AssertionError):
    """The storage broke a promise."""


@dataclass(frozen=True)
class Plan:
    """What kind of life it is."""

    partitions: int = 2
    steps: int = 40
    aligned: bool = False
    """Batches fill blocks exactly."""
    twins: bool = False
    """All partitions get batches of the same sizes at the same offsets."""
    crowd: bool = False
    """Thousands of small batches."""
    relay: bool = False
    """The first partition's segments are removed, and their blocks go to the others, which get batches of the same sizes at the same
    offsets."""
    compact: bool = False
    """Keyed records, compacted again and again."""
    transactions: bool = False
    """Over all partitions; their ends are decided in the first one."""
    arena: bool = False
    flush_group: bool = False
    together: bool = False
    """A start flushes what it did to all logs at once."""
    acks: tuple[int, ...] = (-1, -1, 1, 0)
    settings: dict[str, Any] = field(default_factory=lambda: {"segment_bytes": 30_000})
    checkpoint_bytes: int = 0
    unchecked_max: int = 0
    faults: float = 0.0
    """How likely a call to the disk fails."""
    lies: frozenset[str] = frozenset()


class TapedOs:
    """The module os for storage/files, on the tape."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        there = os.path.lexists(path)
        fd = os.open(path, flags, mode)
        if flags & os.O_CREAT and not there:
            self.tape.events.append(("create", str(path), os.fstat(fd).st_ino))
        elif flags & os.O_TRUNC:
            self.tape.events.append(("truncate", os.fstat(fd).st_ino, 0))
        return fd

    def write(self, fd: int, data: Any) -> int:
        at = os.lseek(fd, 0, os.SEEK_CUR)
        done = os.write(fd, data)
        self.tape.events.append(("write", os.fstat(fd).st_ino, at, bytes(data[:done])))
        return done

    def fsync(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not os.path.isdir(path):
            self.tape.events.append(("sync", inode, 0))
        elif "directory not synced" not in self.tape.lies:
            self.tape.events.append(("dirsync", path, 0))

    def replace(self, old: Any, new: Any) -> None:
        os.replace(old, new)
        self.tape.events.append(("rename", str(old), str(new)))

    def unlink(self, path: Any) -> None:
        os.unlink(path)
        self.tape.events.append(("unlink", str(path)))


class Machine:
    """`root` is the data directory; `models` what is known of its partitions. One at a time may be running."""

    def __init__(self, root: Path, scratch: Path, models: list[Model], plan: Plan, seed: int) -> None:
        self.root = root
        self.scratch = scratch
        self.models = models
        self.plan = plan
        self.rng = random.Random(seed)
        self.tape = Tape(self.rng.randrange)
        self.tape.lies = plan.lies
        self.tape.donor = self._donor
        self.broken = False
        """Whether a call has failed in this process's life."""
        self.stopping = False
        self.disk = Disk(root)
        self.store: LocalStore | None = None
        self.logs: list[LocalLog | None] = []
        self.pending: list[tuple[Pending, Model, int, int, int]] = []
        """(append, model, base offset expected, end, acks)"""
        self.repeats: set[Pending] = set()
        """Appends of batches that were sent before: one that is refused says nothing of the first."""
        self.arenas: list[Path] = []
        self.sent: dict[tuple[str, int], list[tuple[bytes, int, int]]] = {}
        self.cleaned: dict[str, int] = {}
        """Up to which offset each log is compacted, as far as this process knows."""

    def _fault(self, what: str, name: str | int) -> int:
        if what in ("read", "mkdir", "rmdir", "unlink") or self.rng.random() >= self.plan.faults:
            return 0
        self.broken = True
        return self.rng.choice((errno.EIO, errno.ENOSPC)) if what in ("allocate", "write") else errno.EIO

    def _donor(self, inode: int) -> bytes:
        for path in sorted(self.root.glob("*/*.log")):
            if path.stat().st_ino != inode and not any(p.stat().st_ino == inode for p in path.parent.iterdir()):
                return path.read_bytes()
        return b""

    @property
    def now(self) -> int:
        return len(self.tape.events)

    # a process's life

    def start(self) -> None:
        """Starts a process, which recovers what is there, and compares that with what must be. Raises Violation."""
        arena = self.scratch / f"arena-{self.root.name}-{len(self.arenas)}" if self.plan.arena else None
        relics = [path for path in self.arenas if path.exists()]
        if arena:
            self.arenas.append(arena)
        self.tape.take_over()
        setattr(files, "os", TapedOs(self.tape))  # noqa: B010
        self.store = LocalStore(
            tape=self.tape,
            memory=2 << 20,
            arena=arena,
            relics=relics,
            flush_group=self.plan.flush_group,
            checkpoint_bytes=self.plan.checkpoint_bytes,
            unchecked_max=self.plan.unchecked_max,
        )
        self.broken = False
        self.tape.opening = True
        self.tape.fault = None
        sync = DiskSync(self.root) if self.plan.together else None
        self.tape.fault = self._fault if self.plan.faults else None
        self.logs = [self._open(model) for model in self.models]
        self._raise_epochs(sync)
        self.tape.fault = None
        for log, model in self.pairs():
            self._check(log, model)
        self.tape.opening = False
        self.tape.fault = self._fault if self.plan.faults else None
        if all(self.logs):  # as broker/server does: what an arena has of a log that could not be opened is still needed
            self.store.drop_relics()
        self.cleaned.clear()
        if self.plan.transactions:
            transactions.recover(self)

    def _open(self, model: Model) -> LocalLog | None:
        assert self.store is not None
        path = self.root / model.name
        if model.created is None and path.is_dir():
            return None  # a partition in the making: the control plane removes it
        new = model.created is None
        args: dict[str, Any] = {"partition": model.index, "leader_epoch": model.epoch, "create": new}
        try:
            log = self.store.open(path, together=self.plan.together and not new, **args, **self.plan.settings)
        except LogError as error:
            if self.broken:
                return None
            raise Violation(f"{model.name} can't be opened: {error}") from None
        if model.created is None:
            model.created = self.now
        return log

    def _check(self, log: LocalLog, model: Model) -> None:
        """Compares what was recovered with what must be there, and goes on from it. Raises Violation."""
        data = self._read(log, model)
        wrong = model.found(data, log.positions.log_start)
        if wrong:
            raise Violation(wrong)
        positions = log.positions
        if positions.high_watermark != positions.log_end:
            raise Violation(f"{model.name}: {positions}")
        end = positions.log_end
        model.eras.append((self.now, [pair for pair in model.batches if pair[0] < end]))
        model.promise(self.now, end, durable=True)
        mine = [pair for pair in model.batches if int.from_bytes(pair[1][43:51], "big", signed=True) == 1000 + model.index]
        model.sequence = int.from_bytes(mine[-1][1][53:57], "big") + count_of(mine[-1][1]) if mine else 0
        if self.rng.random() < 0.5:
            self._ask_again(log, model, mine)

    @staticmethod
    def _read(log: LocalLog, model: Model) -> bytes:
        """All of the log. Raises Violation where no batches are served, or not those asked for."""
        out: list[bytes] = []
        at = log.positions.log_start
        while True:
            result = log.read(at)
            if result.error:
                raise Violation(f"{model.name}: reading at offset {at} fails: {result.error}")
            if not result.data:
                return b"".join(out)
            for got in split(result.data):
                base = int.from_bytes(got[:8], "big", signed=True)
                if (base > at and not model.keyed) or base + count_of(got) <= at or got[16] != 2:
                    raise Violation(f"{model.name}: offset {at} is read as {got[:24].hex()}...")
                out.append(got)
                at = base + count_of(got)
            if not split(result.data):
                raise Violation(f"{model.name}: offset {at} is read as {result.data[:24].hex()}...")

    def _raise_epochs(self, sync: DiskSync | None) -> None:
        """What broker/opening and broker/epochs do; the model's `noted` stands for the metadata. Raises Violation."""
        changed = {}
        recovered = [(log, model) for log, model in self.pairs() if log.opened.recovered]
        try:
            if sync is not None:
                sync.sync()
        except OSError:
            if not self.broken:
                raise
            self.logs = [None for _ in self.logs]  # they are offline until the next start
            return
        for log, model in recovered:
            path = str(self.root / model.name)
            try:
                epochs = changed[path] = load_epochs(path)
            except files.DamagedFileError as error:
                raise Violation(str(error)) from None
            for _, epoch, start in model.noted:
                if epoch > epochs.latest:
                    epochs.assign(epoch, start)
            if epochs.latest < max((epoch for _, epoch in model.epochs), default=-1):
                raise Violation(f"{model.name}: leader epoch {epochs.latest} follows {model.epochs}")
            model.epoch += 1
            epochs.truncate_end(log.positions.log_end)
            epochs.assign(model.epoch, log.positions.log_end)
            model.epochs.append((self.now, model.epoch))
            model.noted.append((self.now, model.epoch, log.positions.log_end))
            log.set_leader_epoch(model.epoch)
        if self.rng.random() < 0.3:
            return  # the process ends before it comes to the checkpoints
        try:
            if sync is not None:
                save_epochs(changed, sync.sync)
            else:
                for path, epochs in changed.items():
                    epochs.save(path)
        except OSError:
            if not self.broken:
                raise

    def _ask_again(self, log: LocalLog, model: Model, mine: list[tuple[int, bytes]]) -> None:
        """The newest batch of the idempotent producer is known, the one after it is taken."""
        for base, found in mine[-1:]:
            if base < log.positions.log_start:
                continue
            result = log.append(bytes(8) + found[8:], -1)
            if (result.error, result.base_offset) != (0, base) or log.positions.log_end != model.end:
                raise Violation(f"{model.name}: the duplicate of offset {base} is answered with {result}")
        self._submit(log, model, -1, idempotent=True)

    def next_batch(self, model: Model, idempotent: bool = False) -> bytes:
        rng = self.rng
        fields: dict[str, Any] = {"timestamp": LATER}
        if idempotent:
            fields |= {"producer_id": 1000 + model.index, "producer_epoch": 0, "base_sequence": model.sequence}
        if self.plan.crowd:
            return batch(1, 1, **fields)
        if self.plan.compact:
            return compaction.some_batch(rng, **fields)
        if self.plan.relay:
            return batch(1, relay.BATCH + 10_000 - len(batch(1, 10_000, **fields)), **fields)
        if self.plan.aligned or self.plan.twins:
            return batch(1, EXACT + 4000 - len(batch(1, 4000, **fields)), **fields)
        count, size = rng.randint(1, 3), rng.choice((1, 10, 300, 1000, 2000, 4000, 9000))
        return batch(count, size if count * (size + 100) < self.plan.settings["segment_bytes"] else 1000, **fields)

    def submit(self, log: LocalLog, model: Model, data: bytes, acks: int = -1) -> tuple[Pending, int]:
        """Appends; the append under way, and its base offset."""
        base = model.add(data)
        one = log.submit(data, acks)
        self.pending.append((one, model, base, base + count_of(data), acks))
        return one, base

    def pairs(self) -> list[tuple[LocalLog, Model]]:
        """The logs that are in use."""
        return [(log, model) for log, model in zip(self.logs, self.models, strict=True) if log and not log.positions.offline]

    def _submit(self, log: LocalLog, model: Model, acks: int, *, idempotent: bool) -> None:
        data = self.next_batch(model, idempotent)
        if idempotent:
            model.sequence += count_of(data)
        _, base = self.submit(log, model, data, acks)
        if idempotent:
            self.sent.setdefault((model.name, id(log)), []).append((data, base, acks))

    def look(self) -> None:
        """Takes note of what was answered."""
        left = []
        for one in self.pending:
            append, model, base, end, acks = one
            if not append.done:
                left.append(one)
                continue
            result = append.result()
            if (result.error == STORAGE_ERROR and self.broken) or (result.error == CLOSED and self.stopping):
                if append not in self.repeats:
                    self._refused(model, append.batch, base)
                continue
            if (result.error, result.base_offset) != (0, base):
                raise Violation(f"{model.name}: offset {base} was expected, the answer is {result}")
            if acks:
                model.promise(self.now, end, durable=acks == -1)
        self.pending = left

    def _refused(self, model: Model, data: bytes, base: int) -> None:
        """A disk that fails, or is full: then the log goes on, and the next batch gets this one's offset."""
        log = self.logs[self.models.index(model)]
        assert log is not None
        if not self.stopping and (log.positions.offline or log.positions.log_end > base):
            return
        if any(at == base and stored[61:] == data[61:] for at, stored in model.batches):
            first = next(i for i, (at, _) in enumerate(model.batches) if at == base)
            idempotent = [int.from_bytes(batch[53:57], "big") for _, batch in model.batches[first:] if batch[43:51] != b"\xff" * 8]
            model.sequence = min(idempotent, default=model.sequence)
            del model.batches[first:]
            self.sent.pop((model.name, id(log)), None)

    def work(self, steps: int) -> None:
        """Clients at work."""
        assert self.store is not None
        rng = self.rng
        for _ in range(steps):
            what = rng.random()
            pairs = self.pairs()
            if self.plan.relay:
                pairs = pairs[1:]
            if not pairs:
                return
            log, model = rng.choice(pairs)
            try:
                self._step(what, log, model, pairs)
            except (LogError, OSError):
                if not self.broken:
                    raise
            self.look()

    def _step(self, what: float, log: LocalLog, model: Model, pairs: list[tuple[LocalLog, Model]]) -> None:
        assert self.store is not None
        rng = self.rng
        if self.plan.compact and what < 0.06:
            compaction.run(self, log, model)
        elif self.plan.transactions and what < 0.15:
            transactions.run(self)
        elif what < 0.45:
            acks = rng.choice(self.plan.acks)
            chosen = pairs if self.plan.twins else [(log, model)]
            for each, of in chosen:
                self._submit(each, of, acks, idempotent=not self.plan.twins and rng.random() < 0.6)
        elif what < 0.52:
            self._repeat(log, model)
        elif what < 0.55 and not self.plan.twins and not self.plan.relay:
            log.roll()
        elif what < 0.57:
            end = log.positions.log_end  # what is parked now may be accepted, and visible, before the flush ended
            log.flush()
            model.promise(self.now, end, durable=True)
        elif what < 0.59 and not self.plan.twins and not self.plan.transactions and model.end:
            start = rng.randint(0, log.positions.high_watermark)
            model.starts.append((self.now, start))
            log.delete_records(start)
        else:
            for _ in range(rng.choice((1, 1, 2, 5, 20))):
                self.store.run()
                self.look()

    def crowd(self) -> None:
        """Thousands of small batches that nobody waits for."""
        log, model = self.logs[0], self.models[0]
        assert log is not None
        assert self.store is not None
        for i in range(2300):
            self._submit(log, model, 1, idempotent=False)
            if i % 500 == 499:
                self.store.run()
        for _ in range(60):
            self.store.run()
            self.look()

    def _repeat(self, log: LocalLog, model: Model) -> None:
        """A client sends a batch again, and may want more of it."""
        sent = self.sent.get((model.name, id(log)), [])[-3:]
        if not sent:
            return
        data, base, _ = self.rng.choice(sent)
        acks = self.rng.choice((-1, 1))
        one = log.submit(data, acks)
        self.repeats.add(one)
        self.pending.append((one, model, base, base + count_of(data), acks))

    def kill(self) -> None:
        """kill -9: what is in memory is gone; of what was asked of the disk, some still happens."""
        assert self.store is not None
        self.tape.kill(self._land)
        self.tape.events.append(("restart",))
        self._end()
        for model in self.models:
            model.eras.append((self.now, list(model.batches)))

    def _land(self, data: bytes) -> Iterable[tuple[int, bytes]]:
        how = self.rng.choice(("none", "all", "prefix", "sectors"))
        if how == "none":
            return []
        if how == "all":
            return [(0, data)]
        pieces = [(at, data[at : at + SECTOR]) for at in range(0, len(data), SECTOR)]
        if how == "prefix":
            return pieces[: self.rng.randint(0, len(pieces))]
        return [piece for piece in pieces if self.rng.random() < 0.5]

    def stop(self) -> None:
        """A clean stop; where a disk failed there is none."""
        assert self.store is not None
        if self.broken:
            self.kill()
            return
        self.tape.fault = None
        self.stopping = True
        for log, model in zip(self.logs, self.models, strict=True):
            if log is not None:
                log.close()
                self.look()
                model.promise(self.now, model.end, durable=True)
        self.store.close()
        self.store = None
        self.stopping = False
        self._end()

    def _end(self) -> None:
        if self.store is not None:
            self.store.crash()
            self.store = None
        setattr(files, "os", os)  # noqa: B010
        self.tape.give_back()
        self.pending.clear()
        self.repeats.clear()
        self.sent.clear()
        self.logs = []
        if self.tape.violations:
            raise Violation(self.tape.violations[0])

    def abandon(self) -> None:
        """The machine is not needed any more."""
        if self.store is not None:
            self._end()
        for arena in self.arenas:
            arena.unlink(missing_ok=True)

    # the power cut

    def after_power_cut(self, when: int, root: Path, seed: int) -> Machine:
        """The machine as it may come back from a power cut right before an event, not yet started."""
        rng = random.Random(seed)
        self.disk.learn(self.tape.events)
        lay_out(root, self.disk.crash(when, rng))
        return Machine(root, self.scratch, [model.at(when) for model in self.models], self.plan, seed)
