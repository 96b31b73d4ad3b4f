"""A Python that has RunPod's SDK and nothing of ours, one worker, and one handler on a queue."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_boot.errors import MorpheusError
from morpheus_boot.queue.sdk import LOCK
from morpheus_boot.smoke.samples import filler
from morpheus_boot.start.environment import make_environment
from tests.jobs.workers import Worker
from tests.queue.handlers import Handler, handler_of
from tests.testbed.job_queue import JobQueue

_REPOSITORY = Path(__file__).parents[2]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def sdk_python() -> Path:
    """From the package index, once; kept below .venv/ for later sessions."""
    try:
        venv = make_environment(_REPOSITORY / ".venv" / "serverless", LOCK, os.environ)
    except MorpheusError as error:
        pytest.skip(f"RunPod's SDK can't be installed: {error}")
    return venv / "bin" / "python"


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker with a checkpoint, for all tests that don't end it."""
    folder: Path = tmp_path_factory.mktemp("serverless")
    checkpoints = folder / "volume" / "model_cache" / "checkpoints"
    checkpoints.mkdir(parents=True)
    # What the example client asks for, and models.yaml names.
    (checkpoints / "talmendoxl_v11_beta.safetensors").write_bytes(filler(100_000, seed=1))
    with Worker(folder / "worker", folder / "volume") as one:
        one.comfyui.start()
        yield one


@pytest.fixture(scope="session")
def shared_queue() -> Iterator[JobQueue]:
    with JobQueue() as one:
        yield one


@pytest.fixture(scope="session")
def shared(shared_queue: JobQueue, worker: Worker, sdk_python: Path) -> Iterator[Handler]:
    """One handler on ``shared_queue``, for all tests that don't end it."""
    with handler_of(shared_queue, worker, sdk_python, "pod-shared") as one:
        yield one


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    """A queue of the test's own."""
    with JobQueue() as one:
        yield one


@pytest.fixture
def job() -> str:
    """A job's id that no other test uses."""
    return f"job-{next(_numbers)}"
