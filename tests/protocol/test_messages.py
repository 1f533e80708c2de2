"""Messages by API key and version, headers, stored data, and the error codes."""

import pytest
from kio.schema.errors import ErrorCode

from fastlog.protocol import DecodeError, EncodeError, messages
from fastlog.protocol.errors import Error, KafkaError

METADATA = 3


def test_requests_and_responses() -> None:
    request = messages.encode_request(METADATA, 12, {"topics": [{"name": "t"}]})
    assert messages.decode_request(METADATA, 12, request)["topics"][0]["name"] == "t"
    response = messages.encode_response(METADATA, 12, {"controller_id": 4, "throttle_time_ms": 0})
    assert messages.decode_response(METADATA, 12, memoryview(response))["controller_id"] == 4
    assert messages.decode_response(METADATA, 0, messages.encode_response(METADATA, 0, {"controller_id": 4}))["controller_id"] == -1
    with pytest.raises(EncodeError):
        messages.encode_response(METADATA, 12, {"controller": 4})
    with pytest.raises(DecodeError, match="MetadataRequest v12: topics at byte 0"):
        messages.decode_request(METADATA, 12, b"")


@pytest.mark.parametrize(("api_key", "version"), [(METADATA, -1), (METADATA, 14), (0, 2), (22, 6), (999, 0)])
def test_what_is_not_served_says_so(api_key: int, version: int) -> None:
    for call in (messages.decode_request, messages.decode_response):
        with pytest.raises(KafkaError) as caught:
            call(api_key, version, b"")
        assert caught.value.code is Error.UNSUPPORTED_VERSION
    for encode in (messages.encode_request, messages.encode_response):
        with pytest.raises(KafkaError):
            encode(api_key, version, {})


def test_request_headers() -> None:
    for version, size in ((8, 12), (9, 13)):
        data = messages.encode_request_header(METADATA, version, 77, "me")
        assert len(data) == size
        assert messages.decode_request_header(data + b"body") == (
            {"request_api_key": METADATA, "request_api_version": version, "correlation_id": 77, "client_id": "me"},
            size,
        )
    assert messages.decode_request_header(messages.encode_request_header(18, 3, 1, None))[0]["client_id"] is None
    # tagged fields that are not known are skipped
    assert messages.decode_request_header(bytes.fromhex("0003 0009 00000001 ffff 01 05 02 aaaa  ee"))[1] == 15
    with pytest.raises(DecodeError):
        messages.decode_request_header(bytes(9))
    with pytest.raises(KafkaError):
        messages.decode_request_header(bytes.fromhex("7fff 0000 00000001 ffff"))


def test_response_headers() -> None:
    for api_key, version, size in ((METADATA, 8, 4), (METADATA, 9, 5), (18, 3, 4)):
        data = messages.encode_response_header(api_key, version, 5)
        assert len(data) == size
        assert messages.decode_response_header(api_key, version, data + b"body") == ({"correlation_id": 5}, size)


def test_stored_data() -> None:
    key = {"group": "g", "topic": "t", "partition": 1}
    assert messages.decode_data("offset_commit_key", 1, messages.encode_data("offset_commit_key", 1, key)) == key
    assert messages.data_versions("offset_commit_key") == (0, 1)
    assert messages.data_versions("group_metadata_key") == (2, 2)
    assert messages.data_versions("group_metadata_value") == (0, 4)
    subscription = messages.encode_data("consumer_protocol_subscription", 3, {"topics": ["t"], "rack_id": "r"})
    # a newer version only adds at the end
    assert messages.decode_data("consumer_protocol_subscription", 3, subscription + b"newer")["rack_id"] == "r"
    assert messages.decode_data("consumer_protocol_subscription", 0, subscription)["topics"] == ["t"]
    with pytest.raises(KafkaError):
        messages.encode_data("consumer_protocol_subscription", 4, {})


def test_error_codes_are_those_of_kafka() -> None:
    assert {error.name: (error.value, error.retriable) for error in Error} == {
        code.name.upper(): (code.value, code.retriable) for code in ErrorCode
    }


def test_error_codes_of_the_future_are_unknown() -> None:
    assert Error.from_code(3) is Error.UNKNOWN_TOPIC_OR_PARTITION
    assert Error.from_code(32_000) is Error.UNKNOWN_SERVER_ERROR


def test_kafka_error() -> None:
    error = KafkaError(Error.NOT_COORDINATOR, "ask another")
    assert (error.code, error.message, error.retriable, str(error)) == (16, "ask another", True, "NOT_COORDINATOR: ask another")
    assert str(KafkaError(Error.INVALID_TOPIC_EXCEPTION)) == "INVALID_TOPIC_EXCEPTION"
