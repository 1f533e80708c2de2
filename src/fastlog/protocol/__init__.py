"""The Kafka protocol: schema files, messages by API key and version, error codes, record batches."""

from fastlog.native.codec import DecodeError, EncodeError

__all__ = ["DecodeError", "EncodeError"]
