"""Fixtures: one file server a module for what can share it, and as many as a test asks for."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fileserver.serving import FileServer

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """One server; its log must be free of warnings and errors at the end."""
    with FileServer(tmp_path_factory.mktemp("shared")) as server:
        yield server
    assert "WARNING" not in server.log
    assert "ERROR" not in server.log


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """One that waits for its clients a second or so; see impatient.py."""
    command = [sys.executable, "-m", "tests.fileserver.impatient"]
    with FileServer(tmp_path_factory.mktemp("impatient"), command=command) as server:
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., FileServer]]:
    """Starts a server over its own folder, or over one given as ``root``."""
    running: list[FileServer] = []

    def begin(root: Path | None = None, **given: Any) -> FileServer:
        folder = root or tmp_path / f"server{next(_numbers)}"
        folder.mkdir(exist_ok=True)
        running.append(FileServer(folder, **given))
        return running[-1]

    yield begin
    for server in running:
        server.stop()


@pytest.fixture
def job() -> str:
    """A job's id that no other test uses."""
    return f"job-{next(_numbers)}"
