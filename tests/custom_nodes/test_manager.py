"""ComfyUI-Manager's configuration: offline and strict, in the file that this Manager reads."""

import configparser
from pathlib import Path

import pytest

from morpheus_boot.comfyui.custom_nodes.manager import configure_manager, is_manager

CLOSED = "def get_system_user_directory(name: str = 'system') -> str: ...\n"


def make_manager(tree: Path, *, new: bool) -> Path:
    (tree / "glob").mkdir(parents=True)
    (tree / "glob" / "manager_core.py").touch()
    (tree / "cm-cli.py").touch()
    if new:
        (tree / "glob" / "manager_migration.py").touch()
    return tree


def make_comfyui(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "folder_paths.py").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("new", "text", "place"),
    [
        (True, CLOSED, "__manager"),
        (True, "", "default/ComfyUI-Manager"),
        (False, CLOSED, "default/ComfyUI-Manager"),
    ],
)
def test_the_file_is_the_one_that_this_manager_reads_in_this_comfyui(
    new: bool, text: str, place: str, tmp_path: Path
) -> None:
    tree = make_manager(tmp_path / "Manager", new=new)
    comfyui = make_comfyui(tmp_path / "comfyui", text)

    file = configure_manager(tree, comfyui, tmp_path / "user")

    assert file == tmp_path / "user" / place / "config.ini"
    config = configparser.ConfigParser(strict=False)
    config.read(file)
    assert config["default"]["network_mode"] == "offline"
    assert config["default"]["security_level"] == "strong"


@pytest.mark.parametrize(
    "before", ["[default]\nsecurity_level = weak\npreview_method = taesd\n", "["]
)
def test_what_a_user_has_set_stays_unless_it_opens_the_manager(before: str, tmp_path: Path) -> None:
    tree = make_manager(tmp_path / "Manager", new=True)
    comfyui = make_comfyui(tmp_path / "comfyui", CLOSED)
    (tmp_path / "user" / "__manager").mkdir(parents=True)
    (tmp_path / "user" / "__manager" / "config.ini").write_text(before)

    text = configure_manager(tree, comfyui, tmp_path / "user").read_text()

    assert "security_level = strong" in text
    assert ("preview_method = taesd" in text) == ("taesd" in before)


def test_a_manager_is_known_by_its_files_and_not_by_its_name(tmp_path: Path) -> None:
    assert is_manager(make_manager(tmp_path / "anything", new=False))
    (tmp_path / "ComfyUI-Manager").mkdir()
    assert not is_manager(tmp_path / "ComfyUI-Manager")
