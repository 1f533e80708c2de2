"""What a coordinator reads and packs in compiled code, committed offsets in one pass; apart from the rest, as no client has use for it."""

from fastlog._core import Commit, hold_commits, pack_commit, pairs_bytes, read_commit

__all__ = ["Commit", "hold_commits", "pack_commit", "pairs_bytes", "read_commit"]
