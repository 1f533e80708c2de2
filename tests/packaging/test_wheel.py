"""ci/wheel makes a wheel that brings all that it needs, and works where there is neither a compiler nor the sources."""

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_wheel_works_in_an_environment_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run([ROOT / "ci/wheel", "--output", tmp_path], capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "embedded broker, command, producer and consumer, with none, gzip, snappy, lz4, zstd: work" in done.stdout
    assert "fastlog bench: works" in done.stdout
    (wheel,) = tmp_path.glob("fastlog_broker-*.whl")
    assert re.search(r"-manylinux_2_\d+_x86_64\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as inside:
        names = inside.namelist()
    tops = {n.split("/")[0] for n in names}
    (info,) = {t for t in tops if t.endswith(".dist-info")}
    assert tops == {"fastlog", "fastlog_broker.libs", info}, "nothing but the package, its libraries and its metadata"
    libraries = {Path(n).name.partition("-")[0] for n in names if n.startswith("fastlog_broker.libs/")}
    assert libraries == {"liblz4", "libsnappy", "libzstd"}
    licenses = {n.removeprefix(f"{info}/licenses/") for n in names if n.startswith(f"{info}/licenses/")}
    assert licenses == {"LICENSE", "LICENSES/liburing.txt", *(f"LICENSES/{library}.txt" for library in libraries)}
    assert "fastlog/py.typed" in names
