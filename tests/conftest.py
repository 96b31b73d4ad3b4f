"""What holds for every test: nothing of this machine's own set-up reaches it."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_boot.start.package_index import PIP, fetch_wheel, index_url

pytest_plugins = ["tests.testbed.fixtures"]

_OURS = ("MORPHEUS_", "COMFYUI_", "FILESERVER_", "RUNPOD_", "HF_", "CIVITAI_")


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
def pip_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned wheel of pip, from the index that this machine is set up for."""
    return fetch_wheel(PIP, index_url(os.environ), tmp_path_factory.mktemp("pip"))
