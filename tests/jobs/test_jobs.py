"""A job from its post to its files, in both forms."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from morpheus_boot.smoke.samples import png_size
from tests.guard.served import REAL, node, real_only
from tests.jobs.graphs import (
    FLUX,
    PICTURE,
    creation,
    rescale,
    rescale_graph,
    saved,
    slow,
    worker_comfyui_test_input,
)
from tests.jobs.workers import Worker
from tests.wait import wait_until

stand_in_only = pytest.mark.skipif(REAL, reason="no ComfyUI here has a checkpoint")
_MANY = 200


def _names(ended: dict[str, Any]) -> list[str]:
    return [file["name"] for file in ended["files"]]


def test_a_workflow_by_name_is_answered_with_the_paths_of_its_files(
    worker: Worker, job: str
) -> None:
    image = worker.upload(job, PICTURE)

    ended = worker.done(rescale(job, image, 24, 12))

    path = str(worker.volume.jobs / job / "output" / "rescale_00001_.png")
    assert ended["output"] == {"worker_job_id": job, "image_pod_path": path, "files": [path]}
    assert png_size(Path(path).read_bytes()) == (24, 12)
    [file] = ended["files"]
    assert (file["name"], file["kind"], file["pod_path"]) == ("rescale_00001_.png", "image", path)
    assert file["size_bytes"] == Path(path).stat().st_size
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", file["modified_at"])
    assert ended["worker"] == worker.name
    assert ended["progress"]["nodes_done"] == ended["progress"]["nodes"]
    assert (
        worker.files.get(f"/download/{job}/rescale_00001_.png").content == Path(path).read_bytes()
    )


def test_a_graph_is_answered_with_the_pictures_it_saved(worker: Worker, job: str) -> None:
    ended = worker.done(rescale_graph(job, 20, 10))

    path = str(worker.volume.jobs / job / "output" / "ComfyUI_00001_.png")
    assert ended["output"] == {
        "images": [{"filename": "ComfyUI_00001_.png", "type": "path", "data": path}]
    }
    assert png_size(Path(path).read_bytes()) == (20, 10)


@pytest.mark.parametrize("mount", ["/workspace", "/runpod-volume", "ours"])
def test_a_file_is_found_under_every_mount_path_of_the_volume(
    worker: Worker, job: str, mount: str
) -> None:
    worker.upload(job, PICTURE)
    root = worker.volume.root if mount == "ours" else mount

    ended = worker.done(rescale(job, f"{root}/jobs/{job}/input/x.png"))

    assert _names(ended) == ["rescale_00001_.png"]


def test_a_job_without_an_id_gets_one(worker: Worker) -> None:
    ended = worker.done(rescale_graph())

    assert re.fullmatch(r"[0-9a-f-]{36}", ended["worker_job_id"])


def test_two_nodes_with_one_prefix_make_two_files(worker: Worker, job: str) -> None:
    ended = worker.done(saved(job, "ComfyUI", "ComfyUI", color=1))

    assert sorted(_names(ended)) == ["ComfyUI_00001_.png", "ComfyUI_00002_.png"]
    assert len(ended["output"]["images"]) == 2


def test_every_prefix_lands_in_the_jobs_own_output(worker: Worker, job: str) -> None:
    prefixes = ("another-job/output/a", "checkpoints/b", f"{worker.volume.jobs}/third/output/c")

    ended = worker.done(saved(job, *prefixes, color=2))

    assert sorted(_names(ended)) == ["a_00001_.png", "c_00001_.png", "checkpoints/b_00001_.png"]
    assert not (worker.volume.jobs / "another-job").exists()
    assert not (worker.volume.jobs / "third").exists()


def test_pictures_for_the_browser_alone_are_not_answered(worker: Worker, job: str) -> None:
    ended = worker.done(saved(job, "only", color=3, kind="PreviewImage"))

    assert ended["output"] == {"status": "success_no_images", "images": []}


def test_films_sounds_and_texts_count_as_pictures_do(worker: Worker, job: str) -> None:
    graph = {"film": node("Films", filename_prefix="x"), "say": node("Says", text="two\nlines")}

    ended = worker.done({"workflow": graph, "worker_job_id": job})

    told = [(file["name"], file["kind"]) for file in ended["files"]]
    wanted = {"x_00001_.mp4": "video", "a sound.flac": "audio", "text_say.txt": "text"}
    assert dict(told) == wanted
    answered = [image["filename"] for image in ended["output"]["images"]]
    assert answered == ["x_00001_.mp4", "a sound.flac"]
    assert [text["filename"] for text in ended["output"]["texts"]] == ["text_say.txt"]
    text = worker.volume.jobs / job / "output" / "text_say.txt"
    assert text.read_text() == "two\nlines"


def test_the_first_film_is_a_workflows_answer(worker: Worker, job: str) -> None:
    graph = {"film": node("Films", filename_prefix="__param:output_path__")}
    (worker.volume.workflows / "film.json").write_text(json.dumps(graph))

    ended = worker.done({"workflow_name": "film", "worker_job_id": job})

    folder = worker.volume.jobs / job / "output"
    assert ended["output"] == {
        "worker_job_id": job,
        "video_pod_path": f"{folder}/film_00001_.mp4",
        "files": [f"{folder}/film_00001_.mp4", f"{folder}/a sound.flac"],
    }


def test_the_same_job_again_makes_its_file_again(worker: Worker, job: str) -> None:
    request = saved(job, "again", color=4)
    worker.done(request)

    second = worker.done(request)
    assert [image["filename"] for image in second["output"]["images"]] == ["again_00002_.png"]

    assert worker.files.post(f"/cleanup/{job}").status_code == 200
    third = worker.done(request)
    assert [image["filename"] for image in third["output"]["images"]] == ["again_00001_.png"]
    assert _names(third) == ["again_00001_.png"]


def test_two_hundred_jobs_of_each_form_each_make_their_file(worker: Worker, job: str) -> None:
    by_name, by_graph = [f"{job}-n{n}" for n in range(_MANY)], [f"{job}-g{n}" for n in range(_MANY)]
    worker.upload(job, PICTURE)

    for n in range(_MANY):
        worker.post(rescale(by_name[n], f"{job}/input/x.png [output]", 10 + n, 4))
        worker.post(rescale_graph(by_graph[n], 10 + n, 4))

    for n in range(_MANY):
        for one, name in ((by_name[n], "rescale_00001_.png"), (by_graph[n], "ComfyUI_00001_.png")):
            ended = worker.ended(one)
            assert (ended["status"], _names(ended)) == ("done", [name])
            assert png_size(Path(ended["files"][0]["pod_path"]).read_bytes()) == (10 + n, 4)


@stand_in_only
def test_creation_draws_what_its_parameters_say(worker: Worker, job: str) -> None:
    ended = worker.done(creation(job))

    [path] = ended["output"]["files"]
    assert ended["output"]["image_pod_path"] == path
    assert png_size(Path(path).read_bytes()) == (64, 32)


@stand_in_only
def test_worker_comfyuis_own_test_input_runs(worker: Worker) -> None:
    ended = worker.done(worker_comfyui_test_input())

    [image] = ended["output"]["images"]
    assert image["filename"] == "ComfyUI_00001_.png"
    assert png_size(Path(image["data"]).read_bytes()) == (512, 512)


@real_only
@pytest.mark.parametrize("form", ["creation", "worker-comfyui"])
def test_only_the_checkpoint_is_missing(worker: Worker, job: str, form: str) -> None:
    request = creation(job) if form == "creation" else worker_comfyui_test_input()

    ended = worker.ended(worker.post(request))

    assert ended["status"] == "failed"
    errors = [e for entry in ended["node_errors"].values() for e in entry["errors"]]
    assert [error["type"] for error in errors] == ["value_not_in_list"]
    assert FLUX in errors[0]["details"]


def test_a_prompt_that_comfyui_rejects_fails_with_its_node_errors(worker: Worker, job: str) -> None:
    ended = worker.ended(worker.post(rescale(job, "nowhere.png")))

    assert ended["status"] == "failed"
    assert "Invalid image file" in ended["error"]
    assert "\n" not in ended["error"]
    [error] = ended["node_errors"]["load"]["errors"]
    assert error["type"] == "custom_validation_failed"
    assert ended["output"] is None


def test_an_unknown_node_is_named(worker: Worker, job: str) -> None:
    graph = {"1": {"class_type": "NoSuchNode", "inputs": {}}}

    ended = worker.ended(worker.post({"workflow": graph, "worker_job_id": job}))

    assert ended["status"] == "failed"
    assert "NoSuchNode" in ended["error"]


def test_an_error_in_a_node_is_told_with_the_node(worker: Worker, job: str) -> None:
    image = worker.upload(job, b"this is no picture", "broken.png")

    ended = worker.ended(worker.post(rescale(job, image)))

    assert ended["status"] == "failed"
    assert ended["error"].startswith("LoadImage (node load): ")


def test_progress_is_seen_while_a_job_runs_and_a_cancel_interrupts_it(
    worker: Worker, job: str
) -> None:
    worker.post(slow(job, seed=1))

    def running() -> None:
        found = worker.job(job)
        assert found["status"] == "running"
        progress = found["progress"]
        assert 0 < progress["nodes_done"] < progress["nodes"]
        assert progress["class_type"] in {"KSampler", "ImageScale"}
        assert REAL or progress["steps"] == 6000

    wait_until(running, 60)
    assert worker.files.post("/jobs", json=slow(job)).status_code == 409

    answer = worker.files.post(f"/jobs/{job}/cancel")

    assert answer.json() == {"worker_job_id": job, "status": "running"}
    assert worker.ended(job)["status"] == "cancelled"
    assert worker.comfyui.get("/queue")["queue_running"] == []


def test_a_job_that_waits_behind_another_is_cancelled_and_never_runs(
    worker: Worker, job: str
) -> None:
    first, waiting = worker.post(slow(f"{job}-a", seed=2)), worker.post(saved(f"{job}-b", "x"))
    third = worker.post(saved(f"{job}-c", "x"))
    wait_until(lambda: worker.job(first)["status"] == "running", 60)

    for one in (waiting, third, first):
        worker.files.post(f"/jobs/{one}/cancel")

    for one in (waiting, third, first):
        assert worker.ended(one)["status"] == "cancelled"
    assert worker.job(waiting)["files"] == []
    assert worker.comfyui.get("/queue") == {"queue_running": [], "queue_pending": []}


def test_a_cleanup_of_a_running_job_cancels_it_first(worker: Worker, job: str) -> None:
    worker.post(slow(job, seed=3))
    wait_until(lambda: worker.job(job)["status"] == "running", 60)

    assert worker.files.post(f"/cleanup/{job}").status_code == 200

    assert worker.files.get(f"/jobs/{job}").status_code == 404
    assert not (worker.volume.jobs / job).exists()
    assert worker.comfyui.get("/queue")["queue_running"] == []


def test_a_job_that_only_has_files_is_told_with_them(worker: Worker, job: str) -> None:
    worker.files.output(job, "film.mp4", b"film")
    worker.files.output(job, "sub/sound.flac", b"sound")

    found = worker.job(job)

    assert [(file["name"], file["kind"]) for file in found["files"]] == [
        ("film.mp4", "video"),
        ("sub/sound.flac", "audio"),
    ]
    assert found["worker"] is None


def test_a_job_that_is_not_there_is_404(worker: Worker, job: str) -> None:
    assert worker.files.get(f"/jobs/{job}").status_code == 404
    assert worker.files.post(f"/jobs/{job}/cancel").status_code == 404
    assert worker.files.get("/jobs/checkpoints").status_code == 422
