"""One comparison: both brokers up on one core, a load from the other core against one of them at a time, in turns."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.brokers import Broker, Fastlog, Kafka, StartError
from bench.loadgen import wire
from bench.loadgen.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from bench.rows import Row

GIB = 1 << 30
RUNWAY_BYTES = 64 << 20  # per partition: the most that may be prepared ahead
DISK_RESERVE = 8 * GIB
IDLE_SECONDS = 10.0
START_DEADLINE = 60.0
DELETE_SECONDS = 3.0


@dataclass(frozen=True)
class Options:
    directory: Path
    seconds: float
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


class GeneratorError(Exception):
    """The load generator ended without a result."""


class Session:
    """Starts brokers, measures rows, keeps the samples. Close it: it stops what it started and removes its directory's contents."""

    def __init__(self, names: Iterable[str], options: Options, keep: Callable[[], None]) -> None:
        """`keep` is called after each row, to save the samples so far."""
        self.options = options
        self.keep = keep
        self.samples: list[dict[str, Any]] = []
        self.topics: list[tuple[Broker, str]] = []  # made, oldest first, to be deleted when their space is needed
        self.count = 0
        options.directory.mkdir(parents=True, exist_ok=True)
        self.device = machine.device_of(options.directory)
        self.brokers: list[Broker] = []
        for name in names:
            if name == "fastlog":
                self.brokers.append(Fastlog(options.directory, options.broker_core, options.fastlog_options, options.memory_bytes))
            else:
                self.brokers.append(Kafka(options.directory, options.broker_core, options.kafka_options))

    def resume(self, samples: list[dict[str, Any]]) -> None:
        """Takes over what an earlier run measured soundly; it is not measured again."""
        self.samples += [sample for sample in samples if sample.get("sound")]

    def is_measured(self, row: Row, broker: Broker, pair: int) -> bool:
        return any((s["row"], s["broker"], s["pair"]) == (row.name, broker.name, pair) for s in self.samples)

    def start(self) -> None:
        """Starts all brokers, each with nothing stored: a run that was killed left its data. Raises StartError."""
        for broker in self.brokers:
            broker.wipe()
            broker.start()
            self.options.say(f"{broker.name} {broker.pid} on {broker.address} ({broker.version()})")

    def close(self) -> None:
        for broker in self.brokers:
            broker.stop()
            broker.wipe()
        (self.options.directory / "page-cache.hole").unlink(missing_ok=True)

    def generate(self, job: Job) -> dict[str, Any]:
        """Runs the generator as a process of its own on the load's core. Raises GeneratorError."""
        done = subprocess.run(
            ["taskset", "-c", str(self.options.load_core), sys.executable, "-m", "bench.loadgen", "--raw", "--job", "-"],
            input=json.dumps(asdict(job)),
            capture_output=True,
            text=True,
            check=False,
            timeout=job.seconds + job.drain_seconds + 120,
        )
        if not done.stdout:
            raise GeneratorError(done.stderr.strip()[-2000:])
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def job(self, row: Row, broker: Broker, topic: str, seconds: float, bytes_max: int) -> Job:
        configs = {"retention.ms": "-1", **(broker.durable_configs if row.stable else {})}
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
            with wire.Connection("127.0.0.1", broker.port) as control:
                control.delete_topic(topic)
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
        loads = [row for row in rows if row.kind in ("throughput", "latency")]
        for row in loads:
            seconds = self.options.warm_seconds / len(loads)
            self.make_room(int(seconds * 2e9))
            self.generate(self.job(row, broker, self.new_topic(broker, row), seconds, 0))

    def measure(self, row: Row, broker: Broker, pair: int) -> dict[str, Any]:
        """One sample of one row. Raises GeneratorError, StartError, OSError."""
        sample: dict[str, Any] = {"row": row.name, "broker": broker.name, "pair": pair}
        if row.kind == "idle":
            sample.update(self.measure_idle(broker))
        elif row.kind == "start":
            sample.update(self.measure_start(broker))
        elif row.kind == "read":
            sample.update(self.measure_read(row, broker))
        else:
            sample.update(self.measure_load(row, broker))
        self.samples.append(sample)
        return sample

    def measure_load(self, row: Row, broker: Broker) -> dict[str, Any]:
        options = self.options
        broker.check()
        topic = self.new_topic(broker, row)
        self.make_room(int(options.bytes_max * 1.1))
        if options.lead_seconds:
            lead = self.job(row, broker, self.new_topic(broker, row), options.lead_seconds, options.bytes_max // 8)
            self.generate(lead)
        job = self.job(row, broker, topic, options.seconds, options.bytes_max)
        with wire.Connection("127.0.0.1", broker.port) as control:
            control.create_topic(topic, job.partitions, job.configs)
            control.wait_for_topic(topic)
        sample = self.observe(broker, job)
        return {**sample, "sustained": self.is_sustained(row, sample["acked_bytes"], sample["seconds"])}

    def measure_read(self, row: Row, broker: Broker) -> dict[str, Any]:
        """Stores what the row wants, then reads it. Cold: from the disk, which means that the system's page cache is dropped (root)."""
        broker.check()
        topic = self.new_topic(broker, row)
        self.make_room(int(row.stored * 1.1))
        self.generate(Job(address=broker.address, topic=topic, configs={"retention.ms": "-1"}, window=8, seconds=300, bytes_max=row.stored))
        machine.wait_for_quiet_disk(self.device)
        if row.cold:
            machine.drop_page_cache()
        job = self.job(row, broker, topic, self.options.seconds, 0)
        return {**self.observe(broker, replace(job, create=False), fill=not row.cold), "sustained": True}

    def observe(self, broker: Broker, job: Job, *, fill: bool = True) -> dict[str, Any]:
        """Runs a job, with all that it costs the broker and the device."""
        options = self.options
        filled = machine.fill_page_cache(options.directory) if options.fill_page_cache and fill else 0.0
        machine.wait_for_quiet_disk(self.device)
        before = machine.usage(broker.pid, options.broker_core, self.device)
        result = self.generate(job)
        used = machine.usage(broker.pid, options.broker_core, self.device) - before
        memory = machine.memory_mb(broker.pid)
        machine.wait_for_quiet_disk(self.device)
        written = machine.disk_counters(self.device)[0] - before.device_written
        gigabytes = (result["acked_bytes"] or result["bytes_read"]) / 1e9
        batches = max(result["batches_acked"] or result["batches_read"], 1)
        return {
            **result,
            "page_cache_fill_s": filled,
            "cpu_s": round(used.cpu, 3),
            "core_busy_s": round(used.core_busy, 3),
            "cpu_s_per_GB": round(used.cpu / gigabytes, 3) if gigabytes else None,
            "core_s_per_GB": round(used.core_busy / gigabytes, 3) if gigabytes else None,
            "cpu_us_per_batch": round(used.cpu / batches * 1e6, 2),
            "device_bytes": written,
            "device_bytes_per_byte": round(written / result["acked_bytes"], 3) if result["acked_bytes"] else None,
            "process_bytes_written": used.io_written,
            "switches_per_batch": round(used.switches / batches, 3),
            "memory_MB": memory,
            **{f"{what}_{point}": result[what].get(point) for what in ("ack", "end_to_end") for point in ("p50_us", "p99_us")},
        }

    def is_sustained(self, row: Row, acked: int, seconds: float) -> bool:
        """Whether a run was long enough, and more than memory and prepared space could take."""
        held = self.options.memory_bytes + row.job.get("partitions", 1) * RUNWAY_BYTES
        return seconds >= 29.9 and (acked > held or not row.sustained)

    def measure_idle(self, broker: Broker) -> dict[str, Any]:
        """A fresh start, some quiet seconds, then memory, and CPU over some more."""
        broker.stop()
        broker.start()
        seconds = min(IDLE_SECONDS, self.options.seconds)
        time.sleep(seconds)
        before = machine.usage(broker.pid, self.options.broker_core, self.device)
        time.sleep(seconds)
        used = machine.usage(broker.pid, self.options.broker_core, self.device) - before
        memory = machine.memory_mb(broker.pid)
        resident = round(memory["all"] - memory["shared"], 1)
        return {"memory_MB": memory, "resident_MB": resident, "idle_cpu_percent": round(used.cpu / used.at * 100, 2), "sound": True}

    def measure_start(self, broker: Broker) -> dict[str, Any]:
        """From before the process is made until a produce with acks=1 to a topic of its last life is acknowledged."""
        from bench.loadgen import template

        name = "start"
        broker.check()
        with wire.Connection("127.0.0.1", broker.port) as control:
            control.create_topic(name, 1, {})
            topic = control.wait_for_topic(name)
        broker.stop()
        machine.wait_for_quiet_disk(self.device)
        frame = wire.produce_frame(12, topic, 1, 0, template.make_batch(1, 100))
        begun = broker.launch()
        while True:
            try:
                with wire.Connection("127.0.0.1", broker.port, timeout=5) as control:
                    while True:
                        answer = control.send_frame(frame)
                        answer.tags()
                        answer.uvarint()
                        answer.compact_text()
                        answer.uvarint()
                        answer.number(4)
                        code = answer.number(2)
                        if code == 0:
                            return {"start_s": round(time.monotonic() - begun, 4), "sound": True}
                        self.start_deadline(begun, broker)
            except OSError:
                self.start_deadline(begun, broker)

    def start_deadline(self, begun: float, broker: Broker) -> None:
        """Waits a little. Raises StartError when it took too long."""
        broker.check()
        if time.monotonic() - begun > START_DEADLINE:
            raise StartError(f"{broker.name} acknowledged nothing for {START_DEADLINE:.0f} s:\n{broker.tail()}")
        time.sleep(0.002)

    def run(self, rows: list[Row]) -> None:
        """All rows: the ones that restart brokers first, then, warm, the loads. Order within pairs alternates: AB BA AB ..."""
        pairs = range(self.options.repeats)
        rows = [row for row in rows if not all(self.is_measured(row, broker, pair) for broker in self.brokers for pair in pairs)]
        self.start()
        cold = [row for row in rows if row.kind in ("idle", "start")]
        loads = [row for row in rows if row not in cold]
        for row in cold:
            self.run_row(row)
        if loads:
            for broker in self.brokers:
                self.options.say(f"warming {broker.name}: {self.options.warm_seconds:.0f} s of load")
                self.warm(broker, loads)
        for row in loads:
            self.run_row(row)

    def run_row(self, row: Row) -> None:
        for pair in range(self.options.repeats):
            order = self.brokers if pair % 2 == 0 else list(reversed(self.brokers))
            for broker in order:
                if self.is_measured(row, broker, pair):
                    continue
                try:
                    sample = self.measure(row, broker, pair)
                except (GeneratorError, StartError, OSError, wire.BrokerError) as problem:
                    sample = {"row": row.name, "broker": broker.name, "pair": pair, "sound": False, "trouble": str(problem)}
                    self.samples.append(sample)
                    if broker.process is None or broker.process.poll() is not None:
                        self.revive(broker)
                self.options.say(describe(row, sample))
        self.keep()

    def revive(self, broker: Broker) -> None:
        """A broker that died is started again, so that the other rows can be measured; cold, which the samples show."""
        self.options.say(f"{broker.name} died; starting it again")
        broker.stop()
        try:
            broker.start()
        except StartError as problem:
            self.options.say(str(problem))


def describe(row: Row, sample: dict[str, Any]) -> str:
    """One line of progress."""
    value = sample.get(row.metric)
    line = f"{row.name:12} {sample['broker']:8} {'-' if value is None else f'{value:,.1f}' if value >= 10 else f'{value:.3f}'} {row.unit}"
    if "cpu_s_per_GB" in sample:
        ack = sample["ack"]
        line += f"   {sample['cpu_s_per_GB']} CPU s/GB, {sample['cpu_us_per_batch']} us/batch"
        line += f", ack p50 {ack.get('p50_us')} p99 {ack.get('p99_us')} us"
    if not sample.get("sound"):
        signs = ("trouble", "incomplete", "produce_errors", "fetch_errors", "disorder", "gaps", "bad_crc", "foreign")
        line += f"   NOT SOUND: { {key: sample[key] for key in signs if sample.get(key)} }"
    return line
