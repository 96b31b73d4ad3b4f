"""From pod_start.sh's exec to ComfyUI's, where all is there already: ``python -m tests.bench.warm_start [--rounds N]``.

A first boot makes the environment (from the package index) and fills a volume; the rounds after it are measured. Prints
the median, the range, and the slowest phases of the last round.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.boot.program import REPOSITORY, Site
from tests.wait import wait_until

_MODELS: Final = 20
# Notes when ComfyUI is executed, and becomes it.
_PYTHON: Final = """#!/bin/sh
case "$*" in *main.py*) date +%s%N > {noted}.part; mv {noted}.part {noted} ;; esac
exec {python} "$@"
"""


def main() -> None:
    """Measures, and says what it took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        site = _site(Path(name))
        _boot(site)
        took_ms = [_boot(site) for _ in range(rounds)]
        phases = json.loads((site.local / "state.json").read_text())["phases"]
    print(f"exec to ComfyUI's exec: {statistics.median(took_ms):.0f} ms", end=" ")
    print(f"({min(took_ms):.0f} to {max(took_ms):.0f}, {rounds} rounds, {_MODELS} models)")
    for phase in phases:
        print(f"  {phase['name']}: {1000 * (phase['seconds'] or 0):.0f} ms")


def _site(root: Path) -> Site:
    models = []
    for number in range(_MODELS):
        file = root / f"{number}.safetensors"
        file.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
        models.append(f"  - {{path: checkpoints/{file.name}, url: 'file://{file}'}}\n")
    site = Site(root, "version: 1\nmodels:\n" + "".join(models))
    python = root / "python"
    python.write_text(_PYTHON.format(noted=root / "noted", python=sys.executable))
    python.chmod(0o755)
    site.environ = {"COMFYUI_PYTHON": str(python), "MORPHEUS_TOKEN": "a-token"}
    shutil.rmtree(site.comfyui / "__pycache__", ignore_errors=True)
    return site


def _boot(site: Site) -> float:
    """Milliseconds from exec to exec; the boot is stopped once ComfyUI has been started."""
    noted = site.root / "noted"
    noted.unlink(missing_ok=True)
    command = [str(REPOSITORY / "pod_start.sh"), *site.command("up")[3:]]
    began_ns = time.time_ns()
    with subprocess.Popen(command, env=site.env(), stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(noted.exists, timeout_s=120)
        except AssertionError:
            process.terminate()
            raise SystemExit(process.communicate(timeout=10)[1]) from None
        process.terminate()
        process.communicate(timeout=10)
    return (int(noted.read_text()) - began_ns) / 1e6


if __name__ == "__main__":
    main()
