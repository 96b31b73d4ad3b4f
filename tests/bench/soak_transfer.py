"""Fetches one very large model and watches its memory: ``python -m tests.bench.soak_transfer [--gib 50]``.

Ends with 1 where the peak is above 90 MB, or well above that of 1 GiB. The volume is a folder of the temporary
directory (TMPDIR), which needs so much room; every byte is compared by its SHA-256.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.testbed.content import safetensors, sha256
from tests.testbed.origin import Origin

GIB: Final = 1 << 30
MOST_MB: Final = 90.0
MOST_GROWTH: Final = 1.15


def main() -> int:
    """Fetches 1 GiB, then all of it; returns the exit code."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--gib", type=int, default=50)
    asked = parser.parse_args()
    peaks_mb = [peak_mb(size_gib) for size_gib in (1, asked.gib)]
    print(f"The peak is {peaks_mb[0]:.0f} MB for 1 GiB, {peaks_mb[1]:.0f} MB for {asked.gib} GiB.")
    return int(peaks_mb[1] > min(MOST_MB, peaks_mb[0] * MOST_GROWTH))


def peak_mb(size_gib: int) -> float:
    """The peak of a process's memory that fetches one model of so many GiB, in MB."""
    content = safetensors(size_gib * GIB)
    digest = sha256(content)
    with Origin() as origin, tempfile.TemporaryDirectory(prefix="soak-") as volume:
        command = ("-m", "tests.bench.one_fill", volume, origin.serve("/m", content), digest)
        done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=True)
        published = Path(volume) / "model_cache" / "checkpoints" / "0.safetensors"
        if published.stat().st_size != content.size_bytes:
            raise RuntimeError(f"{published} has another length than its origin's")
    figures: dict[str, float] = json.loads(done.stdout)
    print(f"{size_gib} GiB in {figures['wall_s']:.0f} s", flush=True)
    return figures["peak_mb"]


if __name__ == "__main__":
    sys.exit(main())
