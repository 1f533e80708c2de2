"""kcat (librdkafka as Debian ships it), unmodified, with its default settings."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.wire import stored_batches

pytestmark = pytest.mark.skipif(not shutil.which("kcat"), reason="needs kcat (ci/bootstrap --profile test installs it)")


def kcat(bootstrap: str, *args: str, given: bytes = b"") -> bytes:
    done = subprocess.run(["kcat", "-b", bootstrap, *args], input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_writes_and_reads_back(bootstrap: str, fresh_name: str) -> None:
    lines = [b"key%d:value %d" % (i % 7, i) for i in range(2000)]
    kcat(bootstrap, "-P", "-t", fresh_name, "-K:", given=b"\n".join(lines) + b"\n")
    read = kcat(bootstrap, "-C", "-t", fresh_name, "-e", "-q", "-f", r"%k:%s\n").splitlines()
    for key in range(7):
        mine = b"key%d:" % key
        assert [r for r in read if r.startswith(mine)] == [line for line in lines if line.startswith(mine)]
    assert len(read) == len(lines)


def test_offsets_count_up_from_zero(bootstrap: str, fresh_name: str) -> None:
    kcat(bootstrap, "-P", "-t", fresh_name, "-p", "0", given=b"".join(b"%d\n" % i for i in range(500)))
    read = kcat(bootstrap, "-C", "-t", fresh_name, "-p", "0", "-e", "-q", "-f", r"%o %s\n").split(b"\n")[:-1]
    assert read == [b"%d %d" % (i, i) for i in range(500)]


def test_headers_null_values_and_a_file(bootstrap: str, fresh_name: str, tmp_path: Path) -> None:
    picture = bytes(range(256)) * 2000
    (tmp_path / "picture").write_bytes(picture)
    kcat(bootstrap, "-P", "-t", fresh_name, "-p", "0", "-H", "kind=picture", "-k", "one", str(tmp_path / "picture"))
    kcat(bootstrap, "-P", "-t", fresh_name, "-p", "0", "-Z", "-K:", given=b"gone:\n")
    read = kcat(bootstrap, "-C", "-t", fresh_name, "-p", "0", "-e", "-q", "-D", "", "-f", r"%k %h %S|").decode()
    assert read == f"one kind=picture {len(picture)}|gone  -1|"
    assert kcat(bootstrap, "-C", "-t", fresh_name, "-p", "0", "-c", "1", "-q", "-D", "") == picture


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compresses_and_stays_compressed(bootstrap: str, fresh_name: str, codec: str) -> None:
    """Older librdkafka silently stops compressing where the broker does not advertise old Produce versions (KAFKA-18659)."""
    lines = [b"the same words again and again %d" % (i % 10) for i in range(1000)]
    kcat(bootstrap, "-P", "-t", fresh_name, "-p", "0", "-z", codec, given=b"\n".join(lines) + b"\n")
    assert kcat(bootstrap, "-C", "-t", fresh_name, "-p", "0", "-e", "-q").splitlines() == lines
    batches = stored_batches(bootstrap, fresh_name)
    assert max(batches, key=lambda b: b.count).codec == codec, "one that does not shrink, of a record or two, is sent as it is"
    assert sum(b.count for b in batches) == len(lines)


@pytest.mark.parametrize("acks", ["0", "1", "-1"])
def test_acks(bootstrap: str, fresh_name: str, acks: str) -> None:
    kcat(bootstrap, "-P", "-t", fresh_name, "-p", "0", "-X", f"acks={acks}", given=b"a\nb\nc\n")
    assert kcat(bootstrap, "-C", "-t", fresh_name, "-p", "0", "-c", "3", "-q") == b"a\nb\nc\n"


def test_idempotent_producer(bootstrap: str, fresh_name: str) -> None:
    lines = [b"%d" % i for i in range(5000)]
    kcat(bootstrap, "-P", "-t", fresh_name, "-p", "0", "-X", "enable.idempotence=true", given=b"\n".join(lines) + b"\n")
    assert kcat(bootstrap, "-C", "-t", fresh_name, "-p", "0", "-e", "-q").splitlines() == lines
    batches = stored_batches(bootstrap, fresh_name)
    assert all(b.producer_id >= 0 for b in batches)
    assert [b.base_sequence for b in batches] == [b.base_offset for b in batches]


def test_metadata(bootstrap: str, fresh_name: str) -> None:
    kcat(bootstrap, "-P", "-t", fresh_name, given=b"x\n")
    found = json.loads(kcat(bootstrap, "-L", "-J", "-t", fresh_name))
    topic = found["topics"][0]
    assert topic["topic"] == fresh_name
    assert [p["partition"] for p in topic["partitions"]] == list(range(len(topic["partitions"])))
    brokers = {b["id"] for b in found["brokers"]}
    assert all(p["leader"] in brokers for p in topic["partitions"])


def test_seeks_by_time(bootstrap: str, fresh_name: str) -> None:
    kcat(bootstrap, "-P", "-t", fresh_name, "-p", "0", given=b"a\nb\n")
    times = kcat(bootstrap, "-C", "-t", fresh_name, "-p", "0", "-e", "-q", "-f", r"%T\n").split()
    said = kcat(bootstrap, "-Q", "-t", f"{fresh_name}:0:{times[0].decode()}").decode()
    assert said.strip().endswith("offset 0")
    later = kcat(bootstrap, "-C", "-t", fresh_name, "-p", "0", "-o", f"s@{int(times[1]) + 1}", "-e", "-q")
    assert later == b""


def test_group_goes_on_where_it_stopped(bootstrap: str, fresh_name: str) -> None:
    kcat(bootstrap, "-P", "-t", fresh_name, "-p", "0", given=b"".join(b"%d\n" % i for i in range(100)))
    args = ("-G", fresh_name + "-group", "-q", "-X", "auto.offset.reset=earliest")
    first = kcat(bootstrap, *args, "-c", "40", fresh_name).split()
    rest = kcat(bootstrap, *args, "-e", fresh_name).split()
    assert first + rest == [b"%d" % i for i in range(100)]
