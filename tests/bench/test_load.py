"""The generator against a broker: two seconds of load, everything acknowledged, everything read back as it was sent."""

import pytest

from fastlog.loadgen.job import Job, run


def job(bootstrap: str, topic: str, **given: object) -> Job:
    return Job(address=bootstrap, topic=topic, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("acks", [1, -1])
def test_load_with_consumers(bootstrap: str, fresh_name: str, acks: int) -> None:
    result = run(job(bootstrap, fresh_name, partitions=3, connections=2, consumers=2, groups=2, acks=acks, seconds=2, bytes_max=64 << 20))
    assert result["sound"], result
    assert result["batches_acked"] > 20
    assert result["batches_read"] == 2 * result["batches_acked"]
    assert result["end_to_end"]["count"] == result["batches_read"]
    again = run(job(bootstrap, fresh_name, partitions=3, connections=0, consumers=1, seconds=20, create=False))
    assert again["sound"], again
    assert again["batches_read"] == result["batches_acked"], "a later reader finds the same"


@pytest.mark.parametrize("version", [(9, 12), (12, 13), (13, 16)])
def test_versions(bootstrap: str, fresh_name: str, version: tuple[int, int]) -> None:
    given = {"produce_version": version[0], "fetch_version": version[1], "seconds": 0.5, "consumers": 1, "bytes_max": 16 << 20}
    result = run(job(bootstrap, fresh_name, **given))
    assert result["sound"], result
    assert result["batches_read"] == result["batches_acked"] > 0


def test_small_batches_to_many_partitions(bootstrap: str, fresh_name: str) -> None:
    given = {"partitions": 20, "batches_per_request": 10, "records": 1, "record_bytes": 100, "window": 16, "consumers": 1, "seconds": 1}
    result = run(job(bootstrap, fresh_name, **given))
    assert result["sound"], result
    assert result["batches_acked"] == 10 * result["requests_answered"] > 0
    assert result["batches_read"] == result["batches_acked"]


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches(bootstrap: str, fresh_name: str, compression: str) -> None:
    given = {"compression": compression, "fillings": 2, "records": 16, "consumers": 1, "seconds": 0.5, "bytes_max": 8 << 20}
    result = run(job(bootstrap, fresh_name, **given))
    assert result["sound"], result
    assert result["batches_read"] == result["batches_acked"] > 0
    assert result["end_to_end"]["count"] == 0, "there is no stamp in them"


def test_open_loop(bootstrap: str, fresh_name: str) -> None:
    result = run(job(bootstrap, fresh_name, rate=200.0, window=64, consumers=1, seconds=2, settle_seconds=0.5))
    assert result["sound"], result
    assert result["batches_acked"] == pytest.approx(401, abs=1)
    assert 290 <= result["ack"]["count"] <= 301, "the first half second is not in the latencies"
