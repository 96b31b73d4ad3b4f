"""Finding ComfyUI and its interpreter in the layouts of RunPod's images."""

import shutil
import sys
from pathlib import Path

import pytest

from morpheus_boot.comfyui.find import find_comfyui
from morpheus_boot.config.settings import read_settings
from morpheus_boot.errors import NotSetUp


def install(folder: Path, venv: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "main.py").touch()
    if venv:
        python = folder / venv / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
    return folder


def test_the_first_usual_place_with_a_main_py_wins(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    second, third = install(tmp_path / "second"), install(tmp_path / "third")

    found = find_comfyui(None, None, places=(tmp_path / "empty", second, third))

    assert found.folder == second


@pytest.mark.parametrize("venv", [".venv", "venv"])
def test_comfyuis_own_venv_is_its_interpreter_and_a_given_one_wins(
    tmp_path: Path, venv: str
) -> None:
    folder = install(tmp_path / "ComfyUI", venv)

    assert find_comfyui(folder, None).python == folder / venv / "bin" / "python"
    assert find_comfyui(folder, Path(sys.executable)).python == Path(sys.executable)
    with pytest.raises(NotSetUp, match="COMFYUI_PYTHON"):
        find_comfyui(folder, tmp_path / "no-python")


def test_a_bare_name_of_an_interpreter_is_looked_up_on_path(tmp_path: Path) -> None:
    python = read_settings(environ={"COMFYUI_PYTHON": "python3"}).comfyui_python

    found = find_comfyui(install(tmp_path / "ComfyUI", "venv"), python)

    assert str(found.python) == shutil.which("python3")


def test_where_there_is_none_every_place_that_was_looked_at_is_named(tmp_path: Path) -> None:
    places = (tmp_path / "one", tmp_path / "two")

    with pytest.raises(NotSetUp) as caught:
        find_comfyui(None, None, places=places)

    assert all(str(place) in str(caught.value) for place in places)


def test_an_option_is_known_by_comfyuis_own_source(tmp_path: Path) -> None:
    folder = install(tmp_path / "ComfyUI")
    (folder / "comfy").mkdir()
    (folder / "comfy/cli_args.py").write_text('parser.add_argument("--disable-assets")\n')

    found = find_comfyui(folder, None)

    assert found.knows_option("--disable-assets")
    assert not found.knows_option("--enable-assets")
