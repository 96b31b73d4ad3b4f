from pathlib import Path

import pytest

from morpheus_boot.comfyui.guard.paths import Places, PrefixEscapes, Sender, is_job_id, place
from morpheus_boot.volume.layout import COMFYUI_OUTPUT_FOLDERS
from morpheus_boot.volume.layout import is_job_id as is_job_id_of_the_program

WORKER = Sender("pod-1")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    jobs = tmp_path / "runpod-volume" / "jobs"
    (jobs / "j1" / "output").mkdir(parents=True)
    (jobs / "j1" / "output" / "link").symlink_to(tmp_path)
    (jobs / "j1" / "output" / "astray").symlink_to(tmp_path / "input")
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "back").symlink_to(jobs / "j1")
    (jobs / "gone").symlink_to(tmp_path)
    return Places(str(jobs), str(tmp_path / "input"), str(tmp_path / "temp"), ("/workspace/jobs",))


@pytest.mark.parametrize(
    ("prefix", "placed"),
    [
        ("j1/output/x", "j1/output/x"),
        ("j1/output/sub/x", "j1/output/sub/x"),
        ("j1/output/link", "j1/output/link"),
        ("new.job_2-a/output/x", "new.job_2-a/output/x"),
        ("j1//output/./x", "j1/output/x"),
        ("ComfyUI", "pod-1/output/ComfyUI"),
        ("video/ComfyUI", "pod-1/output/video/ComfyUI"),
        ("checkpoints/ComfyUI", "pod-1/output/checkpoints/ComfyUI"),
        ("checkpoints/output/x", "pod-1/output/checkpoints/output/x"),
        ("loras/output/x", "pod-1/output/loras/output/x"),
        (".morpheus/output/x", "pod-1/output/.morpheus/output/x"),
        ("j1/output", "pod-1/output/j1/output"),
        ("j1/output/", "pod-1/output/j1/output"),
        ("j1/input/x", "pod-1/output/j1/input/x"),
        ("j1/output/../input/x", "pod-1/output/j1/input/x"),
        ("a/../x", "pod-1/output/x"),
        ("", "pod-1/output/ComfyUI"),
        (".", "pod-1/output/ComfyUI"),
        ("j1/output/%date%/x", "j1/output/%date%/x"),
        ("/workspace/jobs/j1/output/x", "j1/output/x"),
        ("//workspace/jobs/j1/output/x", "j1/output/x"),
        ("/workspace/jobs/x", "pod-1/output/x"),
    ],
)
def test_a_prefix_lands_in_a_jobs_output_or_in_the_workers_own(
    places: Places, prefix: str, placed: str
) -> None:
    assert place(prefix, places, WORKER) == placed


def test_an_absolute_prefix_below_our_own_jobs_becomes_relative(places: Places) -> None:
    assert place(f"{places.jobs}/j1/output/x", places, WORKER) == "j1/output/x"


@pytest.mark.parametrize(
    ("prefix", "placed"),
    [
        ("ComfyUI", "mine/output/ComfyUI"),
        ("video/ComfyUI", "mine/output/video/ComfyUI"),
        ("mine/output/x", "mine/output/x"),
        ("j1/output/x", "mine/output/x"),
        ("j1/output/sub/x", "mine/output/sub/x"),
        ("/workspace/jobs/j1/output/x", "mine/output/x"),
        ("j1/input/x", "mine/output/j1/input/x"),
        ("", "mine/output/ComfyUI"),
    ],
)
def test_every_prefix_of_a_job_lands_in_its_own_output(
    places: Places, prefix: str, placed: str
) -> None:
    assert place(prefix, places, Sender("mine", is_job=True)) == placed


@pytest.mark.parametrize(
    "prefix",
    [
        "..",
        "../x",
        "../../model_cache/x",
        "j1/output/../../../x",
        "/etc/x",
        "//etc/x",
        "/",
        "/workspace/jobs/../model_cache/x",
        "/workspace/jobs",
        "/workspace/jobsx/j1/output/x",
        "gone/output/x",
        "j1/output/link/x",
        "j1/output/astray/back",
        "j1/output/\0/x",
        "j1/output/\ud800/x",
    ],
)
def test_a_prefix_that_escapes_is_refused(places: Places, prefix: str) -> None:
    with pytest.raises(PrefixEscapes):
        place(prefix, places, WORKER)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a",
            "A.b_c-9",
            "a" * 128,
            "a" * 129,
            "",
            ".",
            "..",
            "-a",
            "_a",
            "a/b",
            "a b",
            "a\n",
            "é",
        ),
        *sorted(COMFYUI_OUTPUT_FOLDERS),
    ],
)
def test_job_ids_are_those_of_the_program(text: str) -> None:
    assert is_job_id(text) == is_job_id_of_the_program(text)
