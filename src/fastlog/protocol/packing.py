"""What a coordinator packs in compiled code: committed offsets in one pass; apart from the rest, as clients have no use for it."""

from fastlog._core import pack_commit, pairs_bytes

__all__ = ["pack_commit", "pairs_bytes"]
