"""The Kafka protocol: schema files, messages by API key and version, error codes, record batches."""

from fastlog._core import CodecError, DecodeError, EncodeError

__all__ = ["CodecError", "DecodeError", "EncodeError"]
