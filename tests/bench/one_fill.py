"""One fill, measured from inside: ``python -m tests.bench.one_fill VOLUME URL SHA256 [--models N]``.

Prints a line of JSON: wall and CPU seconds from the plan to the record, the peak of the whole process's memory.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from morpheus_boot.cache import FillOptions
from tests.cache.worker import Worker, model


def main() -> int:
    """Fills, and says what it took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("volume", type=Path)
    parser.add_argument("url")
    parser.add_argument("sha256")
    parser.add_argument("--models", type=int, default=1)
    asked = parser.parse_args()
    worker = Worker(asked.volume, size_bytes=10**13, options=FillOptions("bench"))
    wanted = [
        model(f"checkpoints/{n}.safetensors", asked.url, sha256=asked.sha256)
        for n in range(asked.models)
    ]
    # Before the clock starts: the start of a process is not counted.
    importlib.import_module("morpheus_boot.cache.filler")
    began, began_cpu = time.monotonic(), time.process_time()
    worker.fill(*wanted)
    wall_s, cpu_s = time.monotonic() - began, time.process_time() - began_cpu
    # Not getrusage's: that one begins with what the process was forked from.
    status = Path("/proc/self/status").read_text()
    peak_mb = int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
