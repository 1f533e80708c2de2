"""What ci/wheel runs in a bare environment: the package as its users have it. Prints a line for each thing that works."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import fastlog
from fastlog.client import Consumer, Producer

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
COUNT = 1000


def main() -> None:
    package = Path(fastlog.__file__).parent
    assert package.is_relative_to(sys.prefix), f"{package} is not what was installed"
    assert (package / "py.typed").exists()
    about = importlib.metadata.metadata("fastlog-broker")
    licenses = {Path(name).name for name in about.get_all("License-File") or []}
    assert {"LICENSE", "liburing.txt"} <= licenses, licenses
    needed = sorted(d.metadata["Name"] for d in importlib.metadata.distributions())
    print(f"fastlog-broker {about['Version']}, in the environment: {', '.join(needed)}")

    command = Path(sys.executable).with_name("fastlog")
    with fastlog.embedded() as broker:
        for codec in CODECS:
            run = [command, "topic", "create", codec, "--partitions", "1", "--bootstrap", broker.bootstrap_servers]
            subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
            with Producer(bootstrap_servers=broker.bootstrap_servers, compression_type=codec) as producer:
                producer.send_batch(codec, [b"record %d" % i for i in range(COUNT)]).result(60)
            with Consumer(bootstrap_servers=broker.bootstrap_servers) as consumer:
                consumer.assign({(codec, 0): 0})
                seen: list[bytes | None] = []
                while len(seen) < COUNT:
                    found = consumer.poll(COUNT, 60)
                    assert found, f"{codec}: only {len(seen)} records came"
                    seen += [record.value for record in found]
            assert seen == [b"record %d" % i for i in range(COUNT)]
        print(f"embedded broker, command, producer and consumer, with {', '.join(CODECS)}: work")

    bench = [command, "bench", "--seconds", "0.5", "--memory", "128M", "--json"]
    said = json.loads(subprocess.run(bench, check=True, stdout=subprocess.PIPE, timeout=200).stdout)
    assert all(load["sound"] for load in said["loads"].values()), said
    print("fastlog bench: works")


if __name__ == "__main__":
    main()
