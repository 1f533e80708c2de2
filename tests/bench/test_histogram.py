"""The latency histogram against numpy's exact percentiles."""

import numpy as np
import pytest

from fastlog.native import loadhistogram as histogram

PRECISION = 1 / 128


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.random.default_rng(1).lognormal(11, 1.5, 200_000), id="lognormal"),
        pytest.param(np.random.default_rng(2).uniform(0, 1e6, 100_000), id="uniform"),
        pytest.param(np.arange(1, 301), id="small"),
        pytest.param(np.random.default_rng(3).exponential(1e9, 50_000) + 5e9, id="seconds"),
    ],
)
def test_percentiles(values: np.ndarray) -> None:
    values = values.astype(np.int64)
    found = histogram.summarize(values.tolist())
    assert found["count"] == len(values)
    assert found["max_us"] == pytest.approx(values.max() / 1000, abs=0.001)
    assert found["mean_us"] == pytest.approx(values.mean() / 1000, rel=1e-6, abs=0.001)
    for percent in histogram.PERCENTILES:
        exact = np.percentile(values, percent, method="inverted_cdf") / 1000
        assert found[f"p{percent:g}_us"] == pytest.approx(exact, rel=PRECISION, abs=0.001), percent
    assert sum(count for _, count in found["buckets"]) == len(values)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 129, 255, 256, 257, 10**6, 2**40 - 1, 2**63 - 1, 2**64 - 1])
def test_one_value(value: int) -> None:
    [[at, count]] = histogram.summarize([value])["buckets"]
    assert count == 1
    assert at == pytest.approx(value, rel=PRECISION / 2, abs=0)


def test_nothing_recorded() -> None:
    assert histogram.summarize([]) == {"count": 0, "buckets": []}


def test_what_came_since_is_told_apart() -> None:
    """A slow first second does not show in the second one."""
    p50, p99 = histogram.in_turns([10**9] * 1000, [1000] * 98 + [50_000] * 2)
    assert p50 == pytest.approx(1000, rel=0.008)
    assert p99 == pytest.approx(50_000, rel=0.008)
    assert histogram.in_turns([5], []) == (0, 0)
