"""The compression libraries called directly, in one go: what the compiled streams are compared with."""

from __future__ import annotations

import ctypes
import gzip
import struct
import zlib
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache

from fastlog.protocol.records import Codec

JAVA_MAGIC = b"\x82SNAPPY\0"
BLOCK = 32_768


class _Lz4FrameInfo(ctypes.Structure):
    _fields_ = (
        ("block_size_id", c_int),
        ("block_mode", c_int),
        ("content_checksum", c_int),
        ("frame_type", c_int),
        ("content_size", c_uint64),
        ("dictionary_id", c_uint32),
        ("block_checksum", c_int),
    )


class _Lz4Preferences(ctypes.Structure):
    _fields_ = (
        ("frame", _Lz4FrameInfo),
        ("level", c_int),
        ("auto_flush", c_uint),
        ("favor_speed", c_uint),
        ("reserved", c_uint * 3),
    )


@cache
def _library(name: str) -> ctypes.CDLL:
    library = ctypes.CDLL(name)
    zstd = ("ZSTD_compress", "ZSTD_compressBound", "ZSTD_decompress", "ZSTD_findFrameCompressedSize")
    for function in ("LZ4F_compressFrame", "LZ4F_compressFrameBound", *zstd):
        if hasattr(library, function):
            getattr(library, function).restype = c_size_t
    if hasattr(library, "snappy_max_compressed_length"):
        library.snappy_max_compressed_length.restype = c_size_t
    return library


def lz4(data: bytes, *, linked: bool = False, block_size_id: int = 4, checksums: bool = False, content_size: bool = False) -> bytes:
    library = _library("liblz4.so.1")
    wanted = _Lz4Preferences()
    wanted.frame.block_mode = 0 if linked else 1
    wanted.frame.block_size_id = block_size_id
    wanted.frame.content_checksum = wanted.frame.block_checksum = int(checksums)
    wanted.frame.content_size = len(data) if content_size else 0
    room = library.LZ4F_compressFrameBound(c_size_t(len(data)), byref(wanted))
    out = ctypes.create_string_buffer(room)
    made = library.LZ4F_compressFrame(out, c_size_t(room), c_char_p(data), c_size_t(len(data)), byref(wanted))
    assert made <= room
    return out.raw[:made]


def zstd(data: bytes, level: int = 3) -> bytes:
    library = _library("libzstd.so.1")
    room = library.ZSTD_compressBound(c_size_t(len(data)))
    out = ctypes.create_string_buffer(room)
    made = library.ZSTD_compress(out, c_size_t(room), c_char_p(data), c_size_t(len(data)), c_int(level))
    assert made <= room
    return out.raw[:made]


def snappy(data: bytes) -> bytes:
    """One block."""
    library = _library("libsnappy.so.1")
    length = c_size_t(library.snappy_max_compressed_length(c_size_t(len(data))))
    out = ctypes.create_string_buffer(length.value)
    assert library.snappy_compress(c_char_p(data), c_size_t(len(data)), out, byref(length)) == 0
    return out.raw[: length.value]


def unsnappy(block: bytes) -> bytes:
    """Raises ValueError for what is no block."""
    library = _library("libsnappy.so.1")
    length = c_size_t()
    if library.snappy_uncompressed_length(c_char_p(block), c_size_t(len(block)), byref(length)):
        raise ValueError("no length")
    if length.value > 22 * len(block) + 64:
        raise ValueError("an impossible length")
    out = ctypes.create_string_buffer(max(1, length.value))
    if library.snappy_uncompress(c_char_p(block), c_size_t(len(block)), out, byref(length)):
        raise ValueError("no block")
    return out.raw[: length.value]


def java_snappy(data: bytes, block: int = BLOCK) -> bytes:
    """In snappy-java's framing, as the Java client and kafka-python write it."""
    made = JAVA_MAGIC + struct.pack(">ii", 1, 1)
    for at in range(0, len(data), block):
        packed = snappy(data[at : at + block])
        made += struct.pack(">i", len(packed)) + packed
    return made


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def compress(data: bytes, codec: Codec) -> bytes:
    by_codec = {Codec.GZIP: gz, Codec.SNAPPY: java_snappy, Codec.LZ4: lz4, Codec.ZSTD: zstd}
    return by_codec[codec](data) if codec else data


def decompress(data: bytes, codec: Codec, size_max: int = 1 << 20) -> bytes:
    """Raises ValueError for anything but one whole stream of the codec."""
    if codec is Codec.NONE:
        return data
    if codec is Codec.GZIP:
        return _gunzip(data)
    if codec is Codec.SNAPPY:
        return _unsnappy_stream(data)
    return _unlz4(data, size_max) if codec is Codec.LZ4 else _unzstd(data, size_max)


def _gunzip(data: bytes) -> bytes:
    made = b""
    while True:
        stream = zlib.decompressobj(31)
        try:
            made += stream.decompress(data)
        except zlib.error as error:
            raise ValueError(error) from error
        if not stream.eof:
            raise ValueError("cut short")
        data = stream.unused_data
        if not data:
            return made


def _unsnappy_stream(data: bytes) -> bytes:
    if not data.startswith(JAVA_MAGIC):
        return unsnappy(data)
    if len(data) < 16 or struct.unpack_from(">II", data, 8)[0] < 1 or struct.unpack_from(">II", data, 8)[1] > 1:
        raise ValueError("not this version")
    at, made = 16, b""
    while at < len(data):
        if len(data) - at < 4:
            raise ValueError("cut short")
        (length,) = struct.unpack_from(">I", data, at)
        if length > len(data) - at - 4:
            raise ValueError("cut short")
        made += unsnappy(data[at + 4 : at + 4 + length])
        at += 4 + length
    return made


def _unlz4(data: bytes, size_max: int) -> bytes:
    if len(data) < 7 or data[4] & 0xE3 != 0x60 or data[5] & 0x8F or data[5] >> 4 < 4 or data[:4] != b"\x04\x22\x4d\x18":
        raise ValueError("not a frame that Kafka takes")
    library = _library("liblz4.so.1")
    library.LZ4F_decompress.restype = c_size_t
    context = c_void_p()
    library.LZ4F_createDecompressionContext(byref(context), c_uint(100))
    try:
        out = ctypes.create_string_buffer(size_max)
        source = ctypes.create_string_buffer(data, len(data))
        read = wrote = 0
        while True:
            n, room = c_size_t(len(data) - read), c_size_t(size_max - wrote)
            hint = library.LZ4F_decompress(context, byref(out, wrote), byref(room), byref(source, read), byref(n), None)
            read += n.value
            wrote += room.value
            if hint == 0:
                break
            if hint > 1 << 60 or not (n.value or room.value):
                raise ValueError("no frame")
        if read != len(data):
            raise ValueError("something behind the frame")
        return out.raw[:wrote]
    finally:
        library.LZ4F_freeDecompressionContext(context)


def _unzstd(data: bytes, size_max: int) -> bytes:
    library = _library("libzstd.so.1")
    out = ctypes.create_string_buffer(size_max)
    made = library.ZSTD_decompress(out, c_size_t(size_max), c_char_p(data), c_size_t(len(data)))
    if made > size_max or not data:
        raise ValueError("no frame")
    return out.raw[:made]


def zstd_window(data: bytes) -> int:
    """The largest window, in bytes, that the frames of a stream which `decompress` takes ask for; 0 where none of them asks.

    A frame with the single-segment flag is its own window (RFC 8878, 3.1.1.1.2).
    """
    library = _library("libzstd.so.1")
    found = 0
    while data:
        skippable = data[:4] != b"\x28\xb5\x2f\xfd"
        if not skippable and not data[4] & 0x20:
            base = 1 << 10 + (data[5] >> 3)
            found = max(found, base + base // 8 * (data[5] & 7))
        data = data[library.ZSTD_findFrameCompressedSize(c_char_p(data), c_size_t(len(data))) :]
    return found
