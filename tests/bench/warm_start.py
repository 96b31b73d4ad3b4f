"""From pod_start.sh's exec to ComfyUI's, where all is there already: ``python -m tests.bench.warm_start [--rounds N]``.

A first boot makes the environment (from the package index) and fills a volume; the rounds after it are measured. Prints
median and range, and the CPU time that the boot's process has used by then, which depends less on what else runs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from tests.boot.program import REPOSITORY, Site
from tests.wait import wait_until

_MODELS: Final = 20
# Notes when ComfyUI is executed, and what the boot has used by then; then becomes it.
_PYTHON: Final = """#!/bin/sh
case "$*" in
*main.py*)
  echo "$(date +%s%N) $(cut -d' ' -f14,15 /proc/$PPID/stat)" > {noted}.part
  mv {noted}.part {noted} ;;
esac
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
        taken = [_boot(site) for _ in range(rounds)]
    wall_ms, cpu_ms = ([one[i] for one in taken] for i in (0, 1))
    print(
        f"exec to ComfyUI's exec, {rounds} rounds, {_MODELS} models: {median(wall_ms):.0f} ms",
        end=" ",
    )
    print(f"({min(wall_ms):.0f} to {max(wall_ms):.0f}), CPU {median(cpu_ms):.0f} ms")


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
    return site


def _boot(site: Site) -> tuple[float, float]:
    """Milliseconds from exec to exec, and of CPU; the boot is stopped once ComfyUI has been started."""
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
    ended_ns, *ticks = map(int, noted.read_text().split())
    return (ended_ns - began_ns) / 1e6, 1000 * sum(ticks) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
