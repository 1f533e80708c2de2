"""What README and docs quote is what the newest report in the repository says."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from bench import groups, publish, report
from bench.brokers import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def document() -> dict[str, Any]:
    rows: list[tuple[str, str, dict[str, float]]] = [
        ("acks1-1", "kafka", {"MB_per_s": 400.0, "cpu_s_per_GB": 2.0, "loaded_MB": 900.0}),
        ("acks1-1", "fastlog", {"MB_per_s": 1300.0, "cpu_s_per_GB": 0.3, "loaded_MB": 80.0}),
        ("idle", "kafka", {"resident_MB": 400.0, "idle_cpu_percent": 1.0}),
        ("idle", "fastlog", {"resident_MB": 77.0, "idle_cpu_percent": 0.1}),
        ("start", "fastlog", {"start_s": 0.3}),
    ]
    return {
        "made": "2026-11-24 23:50:00 UTC",
        "options": {"repeats": 1, "seconds": 30.0, "memory_bytes": 1 << 30},
        "machine": {"cpu": "2 x Some Processor", "memory_gb": 25.3, "kernel": "6.18"},
        "versions": {"kafka": "Apache Kafka 4.3.0, Java 17"},
        "settings": {},
        "limits": {},
        "samples": [{"row": row, "broker": broker, "pair": 0, "sound": True, **figures} for row, broker, figures in rows],
        "left_out": {"mixed": "no time left"},
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n")
    return tmp_path


@pytest.mark.parametrize("samples", [1, 20_000])
def test_a_report_is_published_whole(document: dict[str, Any], repository: Path, samples: int) -> None:
    source = repository / "report.json"
    document["samples"][0]["series"] = [[float(i), i, i, 1.0, 2.0] for i in range(samples)] * 2
    source.write_text(json.dumps(document))
    place = publish.publish(source, repository)
    assert place == repository / "bench/reports/2026-11-24-2-cores-25GB"
    kept = publish.newest(repository)
    assert kept is not None
    assert (kept.suffix == ".gz") == (samples > 1)
    assert kept.stat().st_size < publish.PLAIN_BYTES_MAX
    assert publish.read(kept) == document
    readme = (repository / "README.md").read_text()
    assert readme.startswith("before\n")
    assert readme.endswith("after\n")
    assert "old" not in readme
    line = next(line for line in readme.splitlines() if "acks=1" in line)
    assert line.endswith("| 400 MB/s | 1,300 MB/s | 3.25x | 2 / 0.3 s per GB |")
    assert "start until" not in readme, "what was measured of one broker only is no comparison"
    docs = (repository / "docs/benchmarks.md").read_text()
    assert "| resident memory idle, shared memory (arena) apart | 400 | 77 | resident_MB <= 60 | 77 | **missed** |" in docs
    assert "| idle | resident_MB <= 60 | 77 |" in docs
    assert "mixed: no time left" in docs
    publish.publish(kept, repository)
    assert (repository / "README.md").read_text() == readme


def test_a_readme_without_a_place_is_left_alone(document: dict[str, Any], repository: Path) -> None:
    (repository / "README.md").write_text("nothing")
    (repository / "report.json.gz").write_bytes(gzip.compress(json.dumps(document).encode()))
    with pytest.raises(ValueError, match="README"):
        publish.publish(repository / "report.json.gz", repository)
    assert publish.newest(repository) is None


def test_readme_and_docs_quote_the_newest_report() -> None:
    readme = (ROOT / "README.md").read_text()
    kept = publish.newest()
    if kept is None:
        assert publish.with_quotes(readme, "") != readme, "there is a place for the figures"
        return
    document, place = publish.read(kept), str(kept.parent.relative_to(ROOT))
    assert publish.quotes(document, place) in readme
    assert (ROOT / "docs/benchmarks.md").read_text() == publish.page(document, place)


def test_reasons_are_of_rows_that_have_targets() -> None:
    assert report.reasons().keys() <= {row.name for row in groups.ROWS if row.targets}
