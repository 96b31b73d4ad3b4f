"""Each of RunPod's images, by its layout: where ComfyUI, its Python and the volume are, and where the models go."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.boot.images import Bind, Container, contents, make_venv, reason_missing
from tests.boot.program import STAND_IN, Program
from tests.testbed.content import read_all, safetensors
from tests.testbed.moosefs import MooseFS

pytestmark = pytest.mark.skipif(reason_missing() is not None, reason=str(reason_missing()))

MODEL = safetensors(300_000)
POD = {"RUNPOD_POD_ID": "pod1", "MORPHEUS_HOLD_S": "0"}
NAMES = ("checkpoints", "clip")
SERVERLESS = {"RUNPOD_POD_ID": "worker1", "RUNPOD_ENDPOINT_ID": "endpoint1"}


@pytest.fixture
def models(tmp_path: Path) -> str:
    """models.yaml of one checkpoint and one text encoder, whose folder ComfyUI reads under another name."""
    (tmp_path / "m.safetensors").write_bytes(read_all(MODEL))
    url = (tmp_path / "m.safetensors").as_uri()
    lines = (f"  - {{path: {folder}/m.safetensors, url: '{url}'}}" for folder in NAMES)
    return "\n".join(("version: 1", "models:", *lines, ""))


def comfyui_in(folder: Path) -> Path:
    """A ComfyUI with the folders of a real one."""
    shutil.copytree(STAND_IN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("custom_nodes", "models/checkpoints", "models/text_encoders", "models/clip"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def up(container: Container) -> Iterator[Program]:
    """A boot that has become ready, and whose ComfyUI lists the models."""
    with container.start("up") as program:
        program.wait_until_ready()
        for folder in ("checkpoints", "text_encoders"):
            url = f"http://127.0.0.1:{container.comfyui_port}/models/{folder}"
            assert requests.get(url, timeout=10).json() == ["m.safetensors"], folder
        yield program


def command_of_comfyui(program: Program) -> list[str]:
    services = program.get("/status").json()["services"]
    pid = next(service["pid"] for service in services if service["name"] == "comfyui")
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_worker_comfyui_has_links_in_its_own_models_and_runs_in_opt_venv(
    tmp_path: Path, models: str
) -> None:
    comfyui = comfyui_in(tmp_path / "image")
    make_venv(tmp_path / "venv")
    binds = (
        Bind(comfyui, "/comfyui"),
        Bind(tmp_path / "venv", "/opt/venv"),
        Bind(folder(tmp_path / "volume"), "/runpod-volume"),
    )

    with up(Container(tmp_path, models, SERVERLESS, binds=binds)) as program:
        python, _, main, *_ = command_of_comfyui(program)

    assert (python, main) == ("/opt/venv/bin/python", "/comfyui/main.py")
    for name in NAMES:
        link = comfyui / "models" / name / "m.safetensors"
        assert str(link.readlink()) == f"/runpod-volume/model_cache/{name}/m.safetensors"


def test_the_guides_place_with_models_that_cant_be_written_has_a_farm(
    tmp_path: Path, models: str
) -> None:
    comfyui = comfyui_in(tmp_path / "image")
    make_venv(comfyui / "venv")
    volume = folder(tmp_path / "volume")
    before = contents(comfyui)
    binds = (
        Bind(comfyui, "/workspace/ComfyUI"),
        Bind(comfyui / "models", "/workspace/ComfyUI/models", read_only=True),
        Bind(volume, "/workspace/job_data"),
    )

    with up(Container(tmp_path, models, POD, binds=binds)) as program:
        python, *_ = command_of_comfyui(program)

    assert python == "/workspace/ComfyUI/venv/bin/python"
    assert contents(comfyui) == before
    farm = tmp_path / "local" / "comfyui" / "models"
    assert str((farm / "clip" / "m.safetensors").readlink()) == (
        "/workspace/job_data/model_cache/clip/m.safetensors"
    )
    registered = json.loads((farm.parent / "extra_model_paths.yaml").read_text())["morpheus"]
    assert registered["base_path"] == str(farm)
    assert registered["text_encoders"] == "clip"


def test_two_workers_share_a_comfyui_on_the_volume_under_two_paths_and_write_nothing_into_it(
    moosefs: MooseFS, tmp_path: Path, models: str
) -> None:
    name = moosefs.fresh()
    comfyui = comfyui_in(moosefs.a / name / "runpod-slim" / "ComfyUI")
    make_venv(comfyui / ".venv")
    before = contents(comfyui)
    pod = Container(
        folder(tmp_path / "pod"), models, POD, binds=(Bind(moosefs.a / name, "/workspace"),)
    )
    worker = Container(
        folder(tmp_path / "worker"),
        models,
        {**SERVERLESS, "COMFYUI_DIR": "/runpod-volume/runpod-slim/ComfyUI"},
        binds=(Bind(moosefs.b / name, "/runpod-volume"),),
    )

    with up(pod) as first, up(worker) as second:
        pythons = [command_of_comfyui(program)[0] for program in (first, second)]

    assert pythons == [
        "/workspace/runpod-slim/ComfyUI/.venv/bin/python",
        "/runpod-volume/runpod-slim/ComfyUI/.venv/bin/python",
    ]
    assert contents(comfyui) == before
    for container, mount in ((pod, "/workspace"), (worker, "/runpod-volume")):
        farm = container.local / "comfyui" / "models"
        assert str((farm / "clip" / "m.safetensors").readlink()) == (
            f"{mount}/model_cache/clip/m.safetensors"
        )
