"""What holds for every test: nothing of this machine's own set-up reaches it, and it ends."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import pytest

from morpheus_boot.start.package_index import PIP, fetch_wheel, index_url
from tests.once import made_once

pytest_plugins = ["tests.testbed.fixtures"]

_OURS: Final = ("MORPHEUS_", "COMFYUI_", "FILESERVER_", "RUNPOD_", "HF_", "CIVITAI_")
_LIMIT_S: Final = 120.0
_AGAIN_S: Final = 5.0


def pytest_configure() -> None:
    """What a test starts obeys all signals, though nohup(1) or a shell's ``&`` started the tests without some."""
    for signum in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    """A test that does not come back fails instead of stopping all others, again and again until it has ended."""

    def late(_signum: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"not over after {_LIMIT_S:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, _LIMIT_S, _AGAIN_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours is set, and a test that forgets to choose its folders fails rather than writes there."""
    for name in tuple(os.environ):
        if name.startswith(_OURS) or name in {"PORT", "PORT_HEALTH"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("MORPHEUS_VOLUME", "/proc/you-forgot-to-choose-a-volume")
    monkeypatch.setenv("MORPHEUS_LOCAL_DIR", "/proc/you-forgot-to-choose-a-local-folder")


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """What a program's main says to the log in one test (set_up_log) ends with it."""
    logger = logging.getLogger("morpheus")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of this session."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def pip_wheel(session_folder: Path) -> Path:
    """The pinned wheel of pip, from the index that this machine is set up for."""
    folder = session_folder / "pip"
    made_once(folder, lambda: fetch_wheel(PIP, index_url(os.environ), folder))
    return folder / PIP.name
