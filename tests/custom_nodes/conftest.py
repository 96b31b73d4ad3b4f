"""What the tests of custom nodes share: one interpreter for all, a world for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.custom_nodes.world import World, make_python, make_world
from tests.once import made_once


@pytest.fixture(scope="session")
def comfyui_python(session_folder: Path) -> Path:
    """ComfyUI's Python, which no test may write: it lives as long as the session."""
    folder = session_folder / "comfyui-python"
    made_once(folder, lambda: make_python(folder / "venv"))
    return folder / "venv" / "bin" / "python"


@pytest.fixture
def world(tmp_path: Path, comfyui_python: Path) -> Iterator[World]:
    with make_world(tmp_path, comfyui_python) as one:
        yield one
