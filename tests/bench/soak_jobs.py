"""Any JSON as a job, any bytes as a file's name, any record, at one worker: too many for the suite, which has hundreds.

    python -m tests.bench.soak_jobs [--examples 10000]

The first that is answered wrong ends it, with the smallest case of its kind; so does a job that is left behind.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

from tests.jobs import fuzzing
from tests.jobs.graphs import saved
from tests.jobs.workers import Worker
from tests.wait import wait_until

CHECKS: Final = (
    ("bodies", fuzzing.check_body, fuzzing.BODIES),
    ("names", fuzzing.check_name, fuzzing.NAMES),
    ("records", fuzzing.check_record, fuzzing.RECORDS),
)


def soak(worker: Worker, examples: int) -> None:
    """Sends ``examples`` of each kind."""
    for name, check, values in CHECKS:
        began_at = time.monotonic()
        fuzz(worker, check, values, examples)
        print(f"{examples} {name} in {time.monotonic() - began_at:.0f} s", flush=True)


def fuzz(
    worker: Worker, check: Callable[[Worker, bytes], None], values: SearchStrategy[bytes], most: int
) -> None:
    """Checks ``most`` of ``values``."""

    @settings(max_examples=most, deadline=None, database=None)
    @given(value=values)
    def each(value: bytes) -> None:
        check(worker, value)

    each()


def main() -> None:
    """Sends them, and looks that a job that is in order still runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    examples = parser.parse_args().examples
    with (
        tempfile.TemporaryDirectory() as folder,
        Worker(Path(folder, "worker"), Path(folder, "volume")) as worker,
    ):
        worker.comfyui.start()
        soak(worker, examples // len(CHECKS))
        for color in range(4):
            worker.done(saved(f"last-{color}", "x", color=color))
        wait_until(lambda: not list(worker.volume.job_marks.glob("*/*.open")), 600)
        assert "Traceback" not in worker.files.log
    print("no job is left behind")


if __name__ == "__main__":
    main()
