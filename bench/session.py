"""One comparison: both brokers up on one core, a load from the other core against one of them at a time, in turns."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bench import machine, sustained
from bench.brokers import Broker, Fastlog, Kafka, StartError
from bench.peers import PEERS
from bench.statistics import beside_echo
from fastlog.loadgen import wire
from fastlog.loadgen.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from bench.rows import Row
    from bench.statistics import Limits

GIB = 1 << 30
DISK_RESERVE = 8 * GIB
DELETE_SECONDS = 3.0
WARM_PARTITIONS = 100
GENERATOR_SPARE_SECONDS = 120  # to make topics and connections


@dataclass(frozen=True)
class Options:
    directory: Path
    seconds: float  # of a measured run, where a row is about what is sustained
    short_seconds: float  # of one of any other row
    repeats: int
    warm_seconds: float  # of each broker, once
    lead_seconds: float  # before each measured run, of the same load on another topic
    bytes_max: int  # of record values in one run
    memory_bytes: int  # fastlog's --memory
    broker_core: int
    load_core: int
    fill_page_cache: bool
    say: Callable[[str], None]
    fastlog_options: list[str] = field(default_factory=list)
    kafka_options: list[str] = field(default_factory=list)
    quiet_seconds: float = 20  # to wait, at most, until the device has nothing to do: others may use it too
    deadline: float = float("inf")  # monotonic: no row is begun later


class GeneratorError(Exception):
    """The load generator ended without a result."""


@dataclass
class Load:
    """A generator that runs beside something else."""

    result: dict[str, Any] = field(default_factory=dict)


class Session:
    """Starts brokers, measures rows, keeps the samples. Close it: it stops what it started and removes its directory's contents."""

    def __init__(self, names: Iterable[str | Broker], options: Options, keep: Callable[[], None]) -> None:
        """`names`: of brokers, or brokers. `keep` is called after each row, to save the samples so far."""
        self.options = options
        self.keep = keep
        self.samples: list[dict[str, Any]] = []
        self.limits: Limits = {}  # of this machine, where they were measured
        self.left_out: dict[str, str] = {}  # rows, and why
        self.topics: list[tuple[Broker, str]] = []  # made, oldest first, to be deleted when their space is needed
        self.count = 0
        options.directory.mkdir(parents=True, exist_ok=True)
        self.device = machine.device_of(options.directory)
        self.aside = options.directory / "aside"  # for what rows start of their own; removed at the end
        self.brokers = [name if isinstance(name, Broker) else self.broker(name) for name in names]

    def broker(self, name: str) -> Broker:
        options = self.options
        if name == "fastlog":
            return Fastlog(options.directory, options.broker_core, options.fastlog_options, options.memory_bytes)
        if name == "kafka":
            return Kafka(options.directory, options.broker_core, options.kafka_options)
        return PEERS[name](options.directory, options.broker_core)

    def resume(self, samples: list[dict[str, Any]]) -> None:
        """Takes over what an earlier run measured soundly; it is not measured again."""
        self.samples += [sample for sample in samples if sample.get("sound")]

    def is_measured(self, row: Row, broker: Broker, pair: int) -> bool:
        return any((s["row"], s["broker"], s["pair"]) == (row.name, broker.name, pair) for s in self.samples)

    def start(self) -> None:
        """Starts all brokers, each with nothing stored: a run that was killed left its data. Raises StartError."""
        machine.allow_descriptors()
        for broker in self.brokers:
            broker.wipe()
            broker.start()
            self.options.say(f"{broker.name} {broker.pid} on {broker.address} ({broker.version()})")

    def close(self) -> None:
        for broker in self.brokers:
            broker.stop()
            broker.wipe()
        shutil.rmtree(self.aside, ignore_errors=True)
        (self.options.directory / "page-cache.hole").unlink(missing_ok=True)

    def generate(self, job: Job, generator: tuple[str, ...] = Broker.generator) -> dict[str, Any]:
        """Runs the generator as a process of its own on the load's core. Raises GeneratorError."""
        with self.beside(job, generator) as load:
            pass
        return load.result

    @contextmanager
    def beside(self, job: Job, generator: tuple[str, ...] = Broker.generator) -> Iterator[Load]:
        """A generator that runs during the block; its result is there after it. Raises GeneratorError at the block's end."""
        command = ["taskset", "-c", str(self.options.load_core), sys.executable, "-m", *generator]
        load = Load()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            answered: list[tuple[str, str]] = []
            # A thread of its own reads, so that a generator with much to say never waits for the block to end.
            reader = threading.Thread(target=lambda: answered.append(process.communicate(json.dumps(asdict(job)))))
            reader.start()
            try:
                yield load
                reader.join(job.seconds + job.drain_seconds + GENERATOR_SPARE_SECONDS)
            finally:
                if reader.is_alive():
                    process.kill()
                    reader.join()
        out, err = answered[0] if answered else ("", "")
        if not out:
            raise GeneratorError(err.strip()[-2000:] or f"the generator gave no result, exit {process.returncode}")
        load.result = json.loads(out)

    def job(self, row: Row, broker: Broker, topic: str, seconds: float, bytes_max: int) -> Job:
        kept = sustained.kept(row) if row.sustained else {}
        configs = {"retention.ms": "-1", **kept, **row.configs, **(broker.durable_configs if row.stable else {})}
        settle = min(3.0, seconds / 4) if row.kind == "latency" else 0.0
        return Job(
            address=broker.address, topic=topic, configs=configs, seconds=seconds, settle_seconds=settle, bytes_max=bytes_max, **row.job
        )

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.options.directory).free

    def make_room(self, wanted: int) -> None:
        """Deletes the oldest topics until so many bytes are free beside the reserve. Raises OSError when that is not enough."""
        while self.free_bytes() < wanted + DISK_RESERVE:
            if not self.topics:
                free, needed = self.free_bytes() / 1e9, (wanted + DISK_RESERVE) / 1e9
                raise OSError(f"{self.options.directory} has {free:.0f} GB free, a run needs {needed:.0f}")
            broker, topic = self.topics.pop(0)
            broker.delete_topic(topic)
            # Files go in the background, Kafka's a second later: wait until the space no longer grows.
            seen, since = self.free_bytes(), time.monotonic()
            while time.monotonic() - since < DELETE_SECONDS and self.free_bytes() < wanted + DISK_RESERVE:
                time.sleep(0.2)
                if self.free_bytes() > seen + GIB // 64:
                    seen, since = self.free_bytes(), time.monotonic()

    def new_topic(self, broker: Broker, row: Row) -> str:
        self.count += 1
        topic = f"{row.name}-{self.count}"
        self.topics.append((broker, topic))
        return topic

    def warm(self, broker: Broker, rows: list[Row]) -> None:
        """Runs each kind of load for a while: the JVM compiles what is hot, both touch their memory."""
        # Making and deleting thousands of partitions would warm nothing that the others don't.
        loads = [row for row in rows if row.kind in ("throughput", "latency") and broker.runs(row)]
        loads = [row for row in loads if row.job.get("partitions", 1) <= WARM_PARTITIONS]
        for row in loads:
            seconds = self.options.warm_seconds / len(loads)
            self.make_room(int(seconds * 2e9))
            job = self.job(row, broker, self.new_topic(broker, row), seconds, 0)
            broker.make_topic(job.topic, job.partitions, job.configs)
            self.generate(job, broker.generator)

    def measure(self, row: Row, broker: Broker, pair: int) -> dict[str, Any]:
        """One sample of one row. Raises GeneratorError, StartError, OSError."""
        sample: dict[str, Any] = {"row": row.name, "broker": broker.name, "pair": pair}
        if row.measure is not None:
            sample.update(row.measure(self, row, broker))
        elif row.kind == "read":
            sample.update(self.measure_read(row, broker))
        else:
            sample.update(self.measure_load(row, broker))
        sample.update(beside_echo(sample, self.limits))
        self.samples.append(sample)
        return sample

    def measure_load(self, row: Row, broker: Broker) -> dict[str, Any]:
        options = self.options
        broker.check()
        topic = self.new_topic(broker, row)
        # What retention keeps is bounded; what is not kept by size is ended by size.
        bytes_max = 0 if row.sustained else options.bytes_max
        self.make_room(sustained.room(row) if row.sustained else int(bytes_max * 1.1))
        job = self.job(row, broker, topic, self.seconds(row), bytes_max)
        if options.lead_seconds:
            # Making thousands of partitions twice would take longer than the run: those are warmed on the topic itself.
            apart = job.partitions <= WARM_PARTITIONS
            lead = self.job(row, broker, self.new_topic(broker, row) if apart else topic, options.lead_seconds, bytes_max // 8)
            broker.make_topic(lead.topic, lead.partitions, lead.configs)
            self.generate(lead, broker.generator)
        broker.make_topic(topic, job.partitions, job.configs)
        sample = self.observe(broker, job)
        if job.partitions > WARM_PARTITIONS:
            broker.delete_topic(topic)  # thousands of open logs would be in the figures of all rows behind
            self.topics.remove((broker, topic))
        if row.sustained:
            return {**sample, **sustained.apart(sample, job.batch_value_bytes, broker.holds(row, options.memory_bytes))}
        if not broker.speaks_kafka:
            broker.delete_topic(topic)  # a peer may hold it in memory
            self.topics.remove((broker, topic))
        return {**sample, "sustained": sample["seconds"] >= 0.95 * job.seconds}

    def measure_read(self, row: Row, broker: Broker) -> dict[str, Any]:
        """Stores what the row wants, then reads it. Cold: from the disk, which means that the system's page cache is dropped (root)."""
        broker.check()
        topic = self.new_topic(broker, row)
        self.make_room(int(row.stored * 1.1))
        self.generate(Job(address=broker.address, topic=topic, configs={"retention.ms": "-1"}, window=8, seconds=300, bytes_max=row.stored))
        machine.wait_for_quiet_disk(self.device, self.options.quiet_seconds)
        if row.cold:
            machine.drop_page_cache()
        job = self.job(row, broker, topic, self.seconds(row), 0)
        return {**self.observe(broker, replace(job, create=False), fill=not row.cold), "sustained": True}

    def observe(self, broker: Broker, job: Job, *, fill: bool = True) -> dict[str, Any]:
        """Runs a job, with all that it costs the broker and the device."""
        options = self.options
        filled = machine.fill_page_cache(options.directory) if options.fill_page_cache and fill else 0.0
        machine.wait_for_quiet_disk(self.device, self.options.quiet_seconds)
        pids = [other.pid for other in self.brokers if other is not broker and other.process is not None]
        machine.wait_for_idle(pids, self.options.quiet_seconds)
        others = sum(map(machine.cpu_seconds, pids))
        before = machine.usage(broker.pid, options.broker_core, self.device)
        result = self.generate(job, broker.generator)
        used = machine.usage(broker.pid, options.broker_core, self.device) - before
        others = sum(map(machine.cpu_seconds, pids)) - others
        memory = machine.memory_mb(broker.pid)
        machine.wait_for_quiet_disk(self.device, self.options.quiet_seconds)
        written = machine.disk_counters(self.device)[0] - before.device_written
        gigabytes = (result["acked_bytes"] or result["bytes_read"]) / 1e9
        batches = max(result["batches_acked"] or result["batches_read"], 1)
        return {
            **result,
            "page_cache_fill_s": filled,
            "cpu_s": round(used.cpu, 3),
            "core_busy_s": round(used.core_busy, 3),
            "others_cpu_s": round(others, 3),
            "cpu_s_per_GB": round(used.cpu / gigabytes, 3) if gigabytes else None,
            "core_s_per_GB": round(used.core_busy / gigabytes, 3) if gigabytes else None,
            "cpu_us_per_batch": round(used.cpu / batches * 1e6, 2),
            "device_bytes": written,
            "device_bytes_per_byte": round(written / result["acked_bytes"], 3) if result["acked_bytes"] else None,
            "process_bytes_written": used.io_written,
            "switches_per_batch": round(used.switches / batches, 3),
            "memory_MB": memory,
            "loaded_MB": round(memory["all"] - memory["shared"], 1),
            **{f"{what}_{point}": result[what].get(point) for what in ("ack", "end_to_end") for point in ("p50_us", "p99_us")},
        }

    def seconds(self, row: Row) -> float:
        """Of one measured run."""
        usual = self.options.seconds if row.sustained else self.options.short_seconds
        return row.seconds or min(usual, row.seconds_max or usual)

    def run(self, rows: list[Row]) -> None:
        """All rows: the ones that restart brokers first, then, warm, the loads. Order within pairs alternates: AB BA AB ..."""
        pairs = range(self.options.repeats)
        rows = [
            row
            for row in rows
            if not all(self.is_measured(row, broker, pair) for broker in self.brokers if broker.runs(row) for pair in pairs)
        ]
        self.start()
        cold = [row for row in rows if row.restarts]
        loads = [row for row in rows if row not in cold]
        for row in cold:
            self.run_row(row)
        if any(row.kind != "own" for row in loads):
            for broker in self.brokers:
                self.options.say(f"warming {broker.name}: {self.options.warm_seconds:.0f} s of load")
                self.warm(broker, loads)
        for row in loads:
            self.run_row(row)

    def run_row(self, row: Row) -> None:
        if time.monotonic() > self.options.deadline:
            self.left_out[row.name] = "no time left"
        elif row.needs and (missing := row.needs()):
            self.left_out[row.name] = missing
        else:
            self.left_out.pop(row.name, None)
            self.run_pairs(row)
            return
        self.options.say(f"{row.name:12} left out: {self.left_out[row.name]}")

    def run_pairs(self, row: Row) -> None:
        for pair in range(self.options.repeats):
            order = self.brokers if pair % 2 == 0 else list(reversed(self.brokers))
            for broker in order:
                if not broker.runs(row) or self.is_measured(row, broker, pair):
                    continue
                try:
                    sample = self.measure(row, broker, pair)
                except (GeneratorError, StartError, OSError, ValueError, wire.BrokerError, subprocess.SubprocessError) as problem:
                    sample = {"row": row.name, "broker": broker.name, "pair": pair, "sound": False, "trouble": str(problem)}
                    self.samples.append(sample)
                    if broker.process is None or broker.process.poll() is not None:
                        self.revive(broker)
                self.options.say(describe(row, sample))
        self.keep()

    def revive(self, broker: Broker) -> None:
        """A broker that died is started again, so that the other rows can be measured; cold, which the samples show.

        With nothing stored: recovering what there was may take minutes, on the core that others are measured on.
        """
        self.options.say(f"{broker.name} died; starting it again:\n{broker.tail()}")
        broker.stop()
        broker.wipe()
        self.topics = [(whose, topic) for whose, topic in self.topics if whose is not broker]
        try:
            broker.start()
        except StartError as problem:
            self.options.say(str(problem))


def describe(row: Row, sample: dict[str, Any]) -> str:
    """One line of progress."""
    value = sample.get(row.metric)
    line = f"{row.name:12} {sample['broker']:8} {'-' if value is None else f'{value:,.1f}' if value >= 10 else f'{value:.3f}'} {row.unit}"
    if sample.get("cpu_s_per_GB") is not None:
        line += f"   {sample['cpu_s_per_GB']} CPU s/GB"
    if ack := sample.get("ack"):
        line += f", {sample.get('cpu_us_per_batch')} us/batch, ack p50 {ack.get('p50_us')} p99 {ack.get('p99_us')} us"
    if not sample.get("sound"):
        signs = ("trouble", "incomplete", "produce_errors", "fetch_errors", "disorder", "gaps", "bad_crc", "foreign")
        line += f"   NOT SOUND: { {key: sample[key] for key in signs if sample.get(key)} }"
    return line
