"""Where what a node saves goes."""

from pathlib import Path

import pytest

from morpheus_boot.comfyui.guard.paths import Places, PrefixEscapes, Sender, is_job_id, place
from morpheus_boot.volume.layout import COMFYUI_OUTPUT_FOLDERS
from morpheus_boot.volume.layout import is_job_id as is_job_id_of_the_program

WORKER, JOB = Sender("pod-1"), Sender("mine", is_job=True)


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
    ("prefix", "of_a_worker", "of_a_job"),
    [
        ("j1/output/x", "j1/output/x", "mine/output/x"),
        ("j1/output/sub/x", "j1/output/sub/x", "mine/output/sub/x"),
        ("j1/output/link", "j1/output/link", "mine/output/link"),
        ("new.job_2-a/output/x", "new.job_2-a/output/x", "mine/output/x"),
        ("j1//output/./x", "j1/output/x", "mine/output/x"),
        ("ComfyUI", "pod-1/output/ComfyUI", "mine/output/ComfyUI"),
        ("video/ComfyUI", "pod-1/output/video/ComfyUI", "mine/output/video/ComfyUI"),
        ("loras/output/x", "pod-1/output/loras/output/x", "mine/output/loras/output/x"),
        (".morpheus/output/x", "pod-1/output/.morpheus/output/x", None),
        ("j1/output", "pod-1/output/j1/output", "mine/output/j1/output"),
        ("j1/output/", "pod-1/output/j1/output", "mine/output/j1/output"),
        ("j1/input/x", "pod-1/output/j1/input/x", "mine/output/j1/input/x"),
        ("j1/output/../input/x", "pod-1/output/j1/input/x", "mine/output/j1/input/x"),
        ("a/../x", "pod-1/output/x", "mine/output/x"),
        ("", "pod-1/output/ComfyUI", "mine/output/ComfyUI"),
        (".", "pod-1/output/ComfyUI", "mine/output/ComfyUI"),
        ("j1/output/%date%/x", "j1/output/%date%/x", "mine/output/%date%/x"),
        ("/workspace/jobs/j1/output/x", "j1/output/x", "mine/output/x"),
        ("//workspace/jobs/j1/output/x", "j1/output/x", "mine/output/x"),
        ("/workspace/jobs/x", "pod-1/output/x", "mine/output/x"),
        ("{jobs}/j1/output/x", "j1/output/x", "mine/output/x"),
    ],
)
def test_a_prefix_lands_in_a_jobs_output_or_in_the_workers_own(
    places: Places, prefix: str, of_a_worker: str, of_a_job: str | None
) -> None:
    prefix = prefix.format(jobs=places.jobs)

    assert place(prefix, places, WORKER) == of_a_worker
    assert place(prefix, places, JOB) == (of_a_job or of_a_worker.replace("pod-1", "mine"))


@pytest.mark.parametrize(
    "prefix",
    [
        *("..", "../x", "../../model_cache/x", "j1/output/../../../x", "/etc/x", "//etc/x", "/"),
        *("/workspace/jobs", "/workspace/jobsx/j1/output/x", "/workspace/jobs/../model_cache/x"),
        *("gone/output/x", "j1/output/link/x", "j1/output/astray/back"),
        *("j1/output/\0/x", "j1/output/\ud800/x"),
    ],
)
def test_a_prefix_that_escapes_is_refused(places: Places, prefix: str) -> None:
    with pytest.raises(PrefixEscapes):
        place(prefix, places, WORKER)


def test_job_ids_are_those_of_the_program() -> None:
    odd = ("", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "é", "a" * 129, *COMFYUI_OUTPUT_FOLDERS)

    assert all(
        is_job_id(text) and is_job_id_of_the_program(text) for text in ("A.b_c-9", "a" * 128)
    )
    assert not any(is_job_id(text) or is_job_id_of_the_program(text) for text in odd)
