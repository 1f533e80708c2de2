"""The compiled core's one door to Python: names of the rooms behind it, and no logic of its own."""
from fastlog.native.batch import peek
from fastlog.native.bridge import DONE, LOG, REQUEST, TXN_CHECK, DataPlane
from fastlog.native.codec import Codec, CodecError, DecodeError, EncodeError
from fastlog.native.compact import Compaction, CompactionCancelledError, DamagedLogError
from fastlog.native.compression import compress, decompress
from fastlog.native.crc32c import checksum as crc32c

__all__ = [
    "Codec", "CodecError", "Compaction", "CompactionCancelledError", "DONE", "DamagedLogError", "DataPlane", "DecodeError", "EncodeError",
    "LOG", "REQUEST", "TXN_CHECK", "compress", "crc32c", "decompress", "peek",
]
