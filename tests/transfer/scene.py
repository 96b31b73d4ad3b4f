"""A fill of one model over several connections, with times that no test has to wait for."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from morpheus_boot.cache.options import TransferTimes
from morpheus_boot.work.backoff import Backoff
from tests.cache.worker import QUICK, Worker
from tests.testbed.content import read_all, safetensors

KIB: Final = 1024
SPAN_BYTES: Final = 256 * KIB
WEIGHTS: Final = safetensors(8 * SPAN_BYTES + 1000)
OTHER: Final = safetensors(9 * SPAN_BYTES, seed=7)
RIGHT: Final = read_all(WEIGHTS)
PATH: Final = "checkpoints/a.safetensors"

TIMES: Final = TransferTimes(
    sync_bytes=4 * SPAN_BYTES,
    span_bytes=SPAN_BYTES,
    connections=8,
    connect_s=1.0,
    read_s=0.5,
    floor_bytes_per_s=20 * KIB,
    window_s=0.3,
    retry=Backoff(first_s=0.01, most_s=0.05, deadline_s=1.5),
    progress_bytes=64 * KIB,
)


def parallel_worker(root: Path) -> Worker:
    """A worker whose downloads are cut into spans."""
    return Worker(root, options=replace(QUICK, transfer_times=TIMES))
