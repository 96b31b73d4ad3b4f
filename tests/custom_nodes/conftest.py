"""What the tests of custom nodes share: one interpreter for all, a world for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.custom_nodes.world import World, make_python, make_world


@pytest.fixture(scope="session")
def comfyui_python(tmp_path_factory: pytest.TempPathFactory, pip_wheel: Path) -> Path:
    """ComfyUI's Python, which no test may write: it lives as long as the session."""
    return make_python(tmp_path_factory.mktemp("comfyui-python") / "venv", pip_wheel)


@pytest.fixture
def world(tmp_path: Path, comfyui_python: Path) -> Iterator[World]:
    with make_world(tmp_path, comfyui_python) as one:
        yield one
