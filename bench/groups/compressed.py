"""Batches that producers have compressed: what a broker spends on looking inside (both do, as the default), not what compressing costs.

MB are bytes of record values before compression; half of each value is new, so all codecs get them to about half.
"""

from bench.rows import ONE, Row, Target
from fastlog.loadgen.contents import CODECS

ROWS = tuple(
    Row(
        f"compressed-{codec}",
        f"64 KiB batches, compression {codec} done beforehand, acks=1, 1 partition",
        "throughput",
        {"acks": ONE, "window": 4, "compression": codec, "fillings": 4},
        metric="MB_per_s",
        unit="MB/s",
        targets=(Target("MB_per_s", 1.5), Target("cpu_s_per_GB", 1 / 2, at_least=False)),
        seconds_max=8,
    )
    for codec in CODECS
)
