"""One worker with its ComfyUI serves all tests that don't end either."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.workers import Worker

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder: Path = tmp_path_factory.mktemp("jobs")
    with Worker(folder / "worker", folder / "volume") as one:
        one.comfyui.start()
        yield one
    assert "ERROR" not in one.files.log
    assert "WARNING" not in one.files.log


@pytest.fixture
def job() -> str:
    """A job's id that no other test uses."""
    return f"job-{next(_numbers)}"
