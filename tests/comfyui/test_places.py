"""Where the links go, and what the generated extra-model-paths file says."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from morpheus_boot.comfyui.places import Place, choose_place, likely_misspelt, write_extra_paths
from morpheus_boot.volume.mount import Mount
from tests.boot.given import FOLDER, PYTHON, REAL

LOCAL_DISK = (Mount(Path("/"), "overlay"),)


def section(path: Path) -> dict[str, str]:
    parsed = json.loads(path.read_text())["morpheus"]
    assert isinstance(parsed, dict)
    return parsed


def test_links_go_into_comfyuis_own_models_but_never_on_a_network_volume(tmp_path: Path) -> None:
    models, farm = tmp_path / "models", tmp_path / "farm"
    models.mkdir()

    assert choose_place(models, farm, LOCAL_DISK) == Place(models, is_farm=False)
    assert choose_place(models, farm, (*LOCAL_DISK, Mount(tmp_path, "fuse"))).is_farm


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_models_that_cant_be_written_are_left_to_the_farm(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir(mode=0o555)

    assert choose_place(tmp_path / "models", tmp_path / "farm", LOCAL_DISK).is_farm


def test_the_file_names_every_folder_but_those_read_under_another_name(tmp_path: Path) -> None:
    names = ["ipadapter/a.bin", "clip/b.safetensors", "unet/c.safetensors", "pulid/d.safetensors"]

    write_extra_paths(tmp_path / "x.yaml", Place(tmp_path, is_farm=False), names, ())

    assert section(tmp_path / "x.yaml") == {
        "base_path": str(tmp_path),
        "ipadapter": "ipadapter",
        "pulid": "pulid",
    }


@pytest.mark.skipif(not REAL, reason="the stand-in reads such files by itself")
def test_a_folder_that_a_real_comfyui_has_is_not_changed_by_the_file(tmp_path: Path) -> None:
    models = FOLDER.resolve() / "models"
    names = ["checkpoints/a.safetensors", "clip/b.safetensors", "loras/c.safetensors"]
    write_extra_paths(tmp_path / "x.yaml", Place(models, is_farm=False), names, ())
    code = """
import copy, sys
import folder_paths
from utils.extra_config import load_extra_path_config

before = copy.deepcopy(folder_paths.folder_names_and_paths)
load_extra_path_config(sys.argv[1])
assert folder_paths.folder_names_and_paths == before
print("the same")
"""
    command = [str(PYTHON), "-B", "-c", code, str(tmp_path / "x.yaml")]

    ended = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)

    assert ended.stdout == "the same\n", ended.stderr


def test_a_farm_registers_those_folders_under_the_name_that_reads_them(tmp_path: Path) -> None:
    names = ["clip/b.safetensors", "text_encoders/c.safetensors", "unet/d.safetensors"]

    write_extra_paths(tmp_path / "x.yaml", Place(tmp_path, is_farm=True), names, [Path("/nodes")])

    assert section(tmp_path / "x.yaml") == {
        "base_path": str(tmp_path),
        "text_encoders": "clip\ntext_encoders",
        "diffusion_models": "unet",
        "custom_nodes": "/nodes",
    }


def test_a_folder_that_is_nearly_one_of_comfyuis_is_named() -> None:
    names = ["checkpointz/a.safetensors", "loras/b.safetensors", "ipadapter/c.bin"]

    assert likely_misspelt(names) == (("checkpointz", "checkpoints"),)
