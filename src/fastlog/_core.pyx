"""The compiled core's one door to Python: names of the rooms behind it, and no logic of its own."""
from fastlog.native.batch import peek
from fastlog.native.bridge import DONE, LOG, REQUEST, TXN_CHECK, DataPlane
from fastlog.native.clientcolumn import arrow_array, arrow_chunks, arrow_fields, column, header_rows
from fastlog.native.clientconsumer import ConsumerCore
from fastlog.native.clientproducer import Deliveries, Delivery, ProducerCore, encode_headers, partition_for
from fastlog.native.clientrecords import Record, RecordBatch, RecordBatches
from fastlog.native.codec import Codec, CodecError, DecodeError, EncodeError
from fastlog.native.compact import Compaction, CompactionCancelledError, DamagedLogError
from fastlog.native.compression import compress, decompress
from fastlog.native.crc32c import checksum as crc32c
from fastlog.native.standing import StandingAnswer

__all__ = [
    "Codec", "CodecError", "Compaction", "CompactionCancelledError", "ConsumerCore", "DONE", "DamagedLogError", "DataPlane", "DecodeError",
    "Deliveries", "Delivery", "EncodeError", "LOG", "ProducerCore", "REQUEST", "Record", "RecordBatch", "RecordBatches",
    "StandingAnswer", "TXN_CHECK", "arrow_array", "arrow_chunks", "arrow_fields", "column", "compress", "crc32c", "decompress",
    "encode_headers", "header_rows", "partition_for", "peek",
]
