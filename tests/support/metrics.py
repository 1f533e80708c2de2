"""A broker's counters, as an operator's Prometheus would read them."""

from __future__ import annotations

import urllib.request


def total(address: str, name: str) -> float:
    """The sum over all labels of a metric at HOST:PORT. Raises KeyError when there is none of that name."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    if not values:
        raise KeyError(name)
    return sum(values)
