from pathlib import Path

import pytest

from morpheus_boot.comfyui.guard.paths import Places
from morpheus_boot.comfyui.guard.routes import (
    Denial,
    refuse_preview,
    refuse_upload,
    refuse_view,
)


def status_of(denial: Denial | None) -> int | None:
    return None if denial is None else denial.status


@pytest.fixture
def places(tmp_path: Path) -> Places:
    jobs = tmp_path / "jobs"
    (jobs / "j1" / "input").mkdir(parents=True)
    (jobs / "linked").mkdir()
    (jobs / "linked" / "input").symlink_to(tmp_path / "input")
    (jobs / "linked" / "output").symlink_to(jobs / "j1" / "input")
    (jobs / "j1" / "out").symlink_to(tmp_path)
    (jobs / "j1" / "in").symlink_to(jobs / "j2")
    (jobs / "j1" / "out.png").symlink_to(tmp_path / "secret.png")
    return Places(str(jobs), str(tmp_path / "input"), str(tmp_path / "temp"))


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, None),
        ({"filename": ""}, None),
        ({"filename": "x.png"}, None),
        ({"filename": "x.png", "subfolder": "j1"}, None),
        ({"filename": "x.png", "subfolder": "j1/in"}, None),
        ({"filename": "x.png [temp]", "subfolder": "sub"}, None),
        ({"filename": "x.png", "type": "user"}, None),
        ({"filename": "x.png", "subfolder": ".."}, 403),
        ({"filename": "x.png", "subfolder": "j1/out"}, 403),
        ({"filename": "x.png", "subfolder": "j1/out/jobs"}, None),
        ({"filename": "x.png", "subfolder": "j1/out/.."}, 403),
        ({"filename": "out.png", "subfolder": "j1"}, 403),
        ({"filename": "x/../out.png", "subfolder": "j1"}, 403),
        ({"filename": "out.png [output]", "subfolder": "j1", "type": "temp"}, 403),
        ({"filename": "x.png", "subfolder": "/etc"}, 403),
        ({"filename": "x.png", "subfolder": "\0"}, 403),
        ({"filename": "blake3:00"}, 404),
    ],
)
def test_what_may_be_viewed(places: Places, asked: dict[str, str], status: int | None) -> None:
    assert status_of(refuse_view(asked, places)) == status


@pytest.mark.parametrize(
    ("kind", "subfolder", "filename", "status"),
    [
        ("input", "", "x.png", None),
        ("input", "checkpoints", "x.png", None),
        ("temp", "a/b", "x.png", None),
        ("output", "j1/input", "x.png", None),
        ("output", "j1/output", "x.png", None),
        ("output", "j1/input/sub", "sub/x.png", None),
        ("output", "new/input", "x.png", None),
        ("output", "j1", "input/x.png", None),
        ("output", "", "j1/input/x.png", None),
        ("output", "a/../j1/input", "x.png", None),
        ("output", "linked/output", "x.png", None),
        ("elsewhere", "", "../x.png", None),
        ("output", "", "x.png", 400),
        ("output", "", "job.json", 400),
        ("output", "j1", "x.png", 400),
        ("output", "j1", "job.json", 400),
        ("output", "j1", "input", 400),
        ("output", "j1/input", ".", 400),
        ("output", "j1/input/..", "job.json", 400),
        ("output", "j1/inputs", "x.png", 400),
        ("output", "j1/other/input", "x.png", 400),
        ("output", ".morpheus/input", "x.png", 400),
        ("output", "-no-job/input", "x.png", 400),
        ("output", "j" * 129 + "/input", "x.png", 400),
        ("output", "linked/input", "x.png", 400),
        ("output", "j1/in", "x.png", 400),
        ("output", "..", "x.png", 400),
        ("output", "j1/out", "x.png", 400),
        ("output", "j1", "out.png", 400),
        ("output", "j1/input", "../out/x.png", 400),
        ("output", "../made", "../jobs/j1/input/x.png", 400),
        ("output", "", "/etc/x.png", 400),
        ("output", "/etc", "x.png", 400),
        ("output", "j1/input", "\0", 400),
        ("output", "j1/input", "\ud800", 400),
        ("output", "checkpoints/input", "x.safetensors", 400),
        ("output", "./loras/output", "x.safetensors", 400),
    ],
)
def test_where_an_upload_may_go(
    places: Places, kind: str, subfolder: str, filename: str, status: int | None
) -> None:
    assert status_of(refuse_upload(kind, subfolder, filename, places)) == status


@pytest.mark.parametrize(
    ("folder", "filename", "status"),
    [
        ("checkpoints", "x.safetensors", None),
        ("loras", "sub/x..y.safetensors", None),
        ("loras", "", None),
        ("loras", "..", 404),
        ("loras", "../x", 404),
        ("loras", "a/../../x", 404),
        ("loras", "/etc/x", 404),
        ("loras", "x\0", 404),
        ("custom_nodes", "x/y", 404),
        ("configs", "x", 404),
    ],
)
def test_which_preview_may_be_asked_for(folder: str, filename: str, status: int | None) -> None:
    assert status_of(refuse_preview(folder, filename)) == status
