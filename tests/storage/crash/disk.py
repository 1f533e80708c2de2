"""What a power cut may leave of a directory, by the contracts of block layer and file system, and no more than they promise.

A write that was not flushed is there, or not, or in part, torn between sectors of 512 bytes; one that was flushed is there, unless a later
one lies over it. A flush of a file covers the writes to it that had ended when the flush began, and the file's size. A durable write
(RWF_DSYNC) covers itself and the size that it needs. A flush of the file system (syncfs) covers all that had ended, names and sizes too. A
flush of some other file of the device covers the bytes of blocks that were
durable once before, as no metadata is owed for them. Sizes, truncations, and the names in a directory that was not flushed since, are
there or not, each on its own; a rename happens as a whole. What had been written to the device and not flushed when a flush failed, of
whatever file, is not made certain by a later one, until it was read back by recovery.
"""

# ruff: noqa: PTH120
from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from pathlib import Path

SECTOR = 512
BLOCK = 4096
NEVER = 1 << 60

Tree = dict[str, "bytes | None"]
"""Paths below a directory: what a file holds, or None for a directory."""


@dataclass(slots=True)
class Change:
    """Something that happened to a file, between two events, and the event from which on it is certain."""

    start: int
    end: int
    at: int
    data: bytes | None
    """None: a truncation or extension to `at` bytes."""
    grows: bool = False
    durable: int = NEVER
    plain: bool = False
    """Onto blocks that owe no metadata."""
    gone: int = NEVER
    """From here on it can't happen any more: what did happen of it is there as another change."""
    doubtful: bool = False
    """A flush failed: no later one makes it certain."""


@dataclass(slots=True)
class Name:
    """A change of a directory's entries."""

    when: int
    kind: str
    path: str
    other: str = ""
    inode: int = 0
    durable: int = NEVER


@dataclass
class Disk:
    """The story of one directory, from a state that was certain on: `base` is what was there, by path."""

    root: Path
    base: dict[str, int | None] = field(default_factory=dict)
    """Inode numbers of files; None: a directory."""
    contents: dict[int, bytes] = field(default_factory=dict)
    changes: dict[int, list[Change]] = field(default_factory=dict)
    names: list[Name] = field(default_factory=list)
    _seen: int = 0
    _open: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    _solid: dict[int, set[int]] = field(default_factory=dict)
    """Blocks of a file that were durable once."""

    def __post_init__(self) -> None:
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_dir():
                self.base[name] = None
                continue
            inode = path.stat().st_ino
            self.base[name] = inode
            self.contents[inode] = path.read_bytes()
            self._solid[inode] = set(range((len(self.contents[inode]) + BLOCK - 1) // BLOCK))

    def learn(self, events: list[tuple[Any, ...]]) -> None:
        """Takes in what is new on a tape."""
        for when in range(self._seen, len(events)):
            getattr(self, f"_{events[when][0]}")(when, *events[when][1:])
        self._seen = len(events)

    # what happened, by the kind of event

    def _change(self, inode: int, change: Change) -> None:
        blocks = self._blocks(change)
        change.plain = bool(blocks) and blocks <= self._solid.setdefault(inode, set())
        self.changes.setdefault(inode, []).append(change)

    @staticmethod
    def _blocks(change: Change) -> set[int]:
        if not change.data:
            return set()
        return set(range(change.at // BLOCK, (change.at + len(change.data) - 1) // BLOCK + 1))

    def _submit(self, when: int, number: int, what: str, inode: int, *rest: Any) -> None:
        if what == "write":
            at, data, durable = rest
            change = Change(when, NEVER, at, data)
            self._change(inode, change)
            self._open[number] = ("write", inode, change, durable)
        else:
            self._open[number] = ("sync", inode, rest[0])

    def _done(self, when: int, number: int, error: int) -> None:
        what, inode, *rest = self._open.pop(number)
        if what == "write":
            change, durable = rest
            change.end = when
            if error:
                change.doubtful = True
            elif durable:
                self._certain(inode, change, when)
        else:
            self._flush(inode, rest[0], when, error)

    def _gone(self, when: int, number: int) -> None:
        what, _, *rest = self._open.pop(number)
        if what == "write":
            rest[0].gone = when

    def _restart(self, when: int) -> None:
        """Another process reads what is there: what it then flushes is certain, though a flush had failed."""
        for changes in self.changes.values():
            for change in changes:
                change.doubtful = False

    def _read_back(self, when: int, inode: int) -> None:
        """So is what this process reads back after the failure: it is there, or seen not to be."""
        for change in self.changes.get(inode, ()):
            change.doubtful = False

    def _write(self, when: int, inode: int, at: int, data: bytes) -> None:
        self._change(inode, Change(when, when, at, data))

    def _truncate(self, when: int, inode: int, size: int) -> None:
        self._change(inode, Change(when, when, size, None))

    def _extend(self, when: int, inode: int, size: int) -> None:
        self._change(inode, Change(when, when, size, None, grows=True))

    def _sync(self, when: int, inode: int, error: int) -> None:
        self._flush(inode, when, when, error)

    def _disksync(self, when: int, names: bool, error: int) -> None:
        self._flush(None, when, when, error)
        for name in self.names if names and not error else ():
            name.durable = min(name.durable, when)

    def _certain(self, inode: int, change: Change, when: int) -> None:
        change.durable = min(change.durable, when)
        self._solid.setdefault(inode, set()).update(self._blocks(change))

    def _flush(self, inode: int | None, start: int, when: int, error: int) -> None:
        """Of a file, or of the file system."""
        for other, changes in self.changes.items():
            for change in changes:
                covered = error or inode in (None, other) or change.plain
                if change.end > start or change.durable < NEVER or change.doubtful or not covered:
                    continue
                if error:  # the device may have dropped all that it had not put on its medium
                    change.doubtful = True
                else:
                    self._certain(other, change, when)

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def _create(self, when: int, path: str, inode: int) -> None:
        self.names.append(Name(when, "create", self._relative(path), inode=inode))

    def _rename(self, when: int, old: str, new: str) -> None:
        self.names.append(Name(when, "rename", self._relative(old), self._relative(new)))

    def _unlink(self, when: int, path: str) -> None:
        self.names.append(Name(when, "unlink", self._relative(path)))

    def _mkdir(self, when: int, path: str) -> None:
        self.names.append(Name(when, "mkdir", self._relative(path)))

    def _rmdir(self, when: int, path: str) -> None:
        self.names.append(Name(when, "rmdir", self._relative(path)))

    def _dirsync(self, when: int, path: str, error: int) -> None:
        if error:
            return
        parent = self._relative(path)
        for name in self.names:
            if name.durable == NEVER and (os.path.dirname(name.path) or ".") == parent:
                name.durable = when

    # what may be left

    def crash(self, when: int, rng: random.Random) -> Tree:
        """One of the states that a power cut right before event `when` may leave."""
        keep = rng.choice((0.0, 0.3, 0.5, 0.7, 1.0))
        tree: dict[str, int | None] = dict(self.base)
        for name in self.names:
            if name.when < when and (name.durable < when or rng.random() < keep):
                self._apply(tree, name)
        written: dict[int, bytes] = {}
        left: Tree = {}
        for path, inode in tree.items():
            if inode is None:
                left[path] = None
                continue
            if inode not in written:
                written[inode] = self._content(inode, when, rng)
            left[path] = written[inode]
        return {path: data for path, data in left.items() if self._reachable(path, left)}

    @staticmethod
    def _reachable(path: str, tree: Tree) -> bool:
        parent = os.path.dirname(path)
        return not parent or parent in tree

    @staticmethod
    def _apply(tree: dict[str, int | None], name: Name) -> None:
        inside = name.path + "/"
        if name.kind == "create":
            tree[name.path] = name.inode
        elif name.kind == "mkdir":
            tree[name.path] = None
        elif name.kind == "unlink":
            tree.pop(name.path, None)
        elif name.kind == "rmdir":
            if not any(path.startswith(inside) for path in tree):
                tree.pop(name.path, None)
        elif name.path in tree:
            tree[name.other] = tree.pop(name.path)
            for path in [path for path in tree if path.startswith(inside)]:
                tree[name.other + "/" + path.removeprefix(inside)] = tree.pop(path)

    def _content(self, inode: int, when: int, rng: random.Random) -> bytes:
        content = bytearray(self.contents.get(inode, b""))
        size = len(content)
        order = []
        for change in self.changes.get(inode, ()):
            if change.start >= when or change.gone < when:
                continue
            until = min(change.end, when)
            order.append((rng.uniform(change.start, until) if until > change.start else float(change.start), change))
        order.sort(key=lambda pair: pair[0])
        style = rng.choice(("none", "all", "whole", "sectors", "prefix", "mixed"))
        for _, change in order:
            certain = change.durable < when
            if change.data is None:
                if not certain and (style == "none" or (style != "all" and rng.random() < 0.5)):
                    continue
                if change.grows:
                    size = max(size, change.at)
                else:
                    size = change.at
                    del content[size:]
                continue
            data = change.data
            how = "all" if certain else rng.choice(("none", "all", "sectors", "prefix")) if style == "mixed" else style
            if how == "none" or (how == "whole" and rng.random() < 0.5):
                continue
            end = change.at + len(data)
            if len(content) < end:
                content.extend(bytes(end - len(content)))
            if how in ("all", "whole"):
                content[change.at : end] = data
            else:
                first = change.at // SECTOR
                count = (end - 1) // SECTOR - first + 1
                cut = rng.randint(0, count)
                for i in range(count):
                    if (i < cut) if how == "prefix" else rng.random() < 0.5:
                        low = max(change.at, (first + i) * SECTOR)
                        high = min(end, (first + i + 1) * SECTOR)
                        content[low:high] = data[low - change.at : high - change.at]
            if end > size and (certain or how == "all" or rng.random() < 0.5):
                size = end
        del content[size:]
        content.extend(bytes(size - len(content)))
        return bytes(content)


def lay_out(root: Path, tree: Tree) -> None:
    """Makes the directory that a state describes."""
    root.mkdir()
    for path in sorted(tree):
        data = tree[path]
        if data is None:
            (root / path).mkdir(exist_ok=True)
            continue
        with (root / path).open("wb") as file:
            file.write(data.rstrip(b"\0"))
            file.truncate(len(data))
