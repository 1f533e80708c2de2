"""The compiled core's one door to Python: names of the rooms behind it, and no logic of its own.

A room is loaded when one of its names is first asked for: a client needs none of the broker's.
"""
from importlib import import_module

ROOMS = {
    "batchtool": ("peek",),
    "bridge": ("APPENDED", "DONE", "LOG", "REQUEST", "TXN_CHECK", "DataPlane"),
    "clientcolumn": ("arrow_array", "arrow_chunks", "arrow_fields", "column", "header_rows"),
    "clientconsumer": ("ConsumerCore",),
    "clientdelivery": ("Deliveries", "Delivery"),
    "clientheaders": ("encode_headers",),
    "clientproducer": ("ProducerCore", "partition_for"),
    "clientrecords": ("Record", "RecordBatch", "RecordBatches"),
    "codec": ("Codec", "CodecError", "DecodeError", "EncodeError"),
    "compact": ("Compaction", "CompactionCancelledError", "DamagedLogError"),
    "compression": ("compress", "decompress"),
    "crc32c": ("crc32c",),
    "disksync": ("DiskSync",),
    "offsetcommit": ("Commit", "hold_commits", "read_commit"),
    "offsetpack": ("pack_commit",),
    "recordpack": ("pack_pairs", "pack_records", "pairs_bytes"),
    "standing": ("StandingAnswer",),
}
ROOM_OF = {name: room for room, names in ROOMS.items() for name in names}

__all__ = sorted(ROOM_OF)


def __getattr__(name):
    if name not in ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = import_module(f"fastlog.native.{ROOM_OF[name]}")
    found = globals()[name] = room.checksum if name == "crc32c" else getattr(room, name)
    return found
