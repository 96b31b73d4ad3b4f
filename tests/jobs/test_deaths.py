"""Whatever dies, no job is lost silently: each ends done, or failed with its cause."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs.graphs import PICTURE, rescale, saved, slow
from tests.jobs.workers import Worker
from tests.wait import wait_until

Start = Callable[..., Worker]

_MANY = 200


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers of one volume; ``times`` as impatient.py takes them."""
    running: list[Worker] = []
    numbers = itertools.count(1)

    def begin(*times: str, comfyui: bool = True) -> Worker:
        name = f"worker-{next(numbers)}"
        command = [sys.executable, "-m", "tests.jobs.impatient", *times]
        running.append(Worker(tmp_path / name, tmp_path / "volume", name, command))
        if comfyui:
            running[-1].comfyui.start()
        return running[-1]

    yield begin
    for worker in running:
        worker.stop()


def _wait_until_it_runs(worker: Worker, job: str) -> None:
    wait_until(lambda: worker.job(job)["status"] == "running", 60)


def test_a_job_that_comes_before_comfyui_waits_for_it(start: Start) -> None:
    worker = start(comfyui=False)
    worker.post(saved("early", "x"))
    assert worker.job("early")["status"] == "queued"

    worker.comfyui.start()

    assert worker.ended("early")["status"] == "done"


def test_comfyui_that_never_comes_fails_the_job_with_that_cause(start: Start) -> None:
    worker = start("until_comfyui_s=1", comfyui=False)

    ended = worker.ended(worker.post(saved("alone", "x")))

    assert ended["status"] == "failed"
    assert ended["error"] == "ComfyUI has not answered within 1 s"


def test_a_job_beyond_its_time_fails_and_is_interrupted(start: Start) -> None:
    worker = start("job_s=1")

    ended = worker.ended(worker.post(slow("long")))

    assert ended["status"] == "failed"
    assert ended["error"] == "it has not ended within 1 s"
    assert worker.comfyui.get("/queue")["queue_running"] == []
    assert worker.ended(worker.post(saved("next", "x")))["status"] == "done"


def test_comfyui_dying_in_a_job_fails_that_one_and_the_next_ones_run(start: Start) -> None:
    worker = start()
    running = worker.post(slow("running"))
    behind = [worker.post(saved(f"behind-{n}", "x")) for n in range(5)]
    _wait_until_it_runs(worker, running)

    worker.comfyui.kill()

    ended = worker.ended(running)
    assert ended["status"] == "failed"
    assert "ComfyUI ended while it ran this job" in ended["error"]
    worker.comfyui.start()
    assert [worker.ended(job)["status"] for job in behind] == ["done"] * 5


def test_a_restarted_file_server_follows_the_job_that_goes_on(start: Start) -> None:
    worker = start()
    running = worker.post(slow("running", part=0.03))
    behind = worker.post(saved("behind", "x"))
    _wait_until_it_runs(worker, running)

    worker.files.kill()
    worker.restart_files()

    assert worker.ended(running)["status"] == "done"
    assert worker.job(running)["output"]["images"][0]["filename"].endswith("_00001_.png")
    assert worker.ended(behind)["status"] == "done"
    assert [file["name"] for file in worker.job(behind)["files"]] == ["x_00001_.png"]


def test_a_job_whose_end_nobody_saw_is_read_from_comfyuis_history(start: Start) -> None:
    worker = start()
    running = worker.post(slow("running", part=0.02))
    _wait_until_it_runs(worker, running)

    worker.files.kill()
    wait_until(lambda: bool(worker.comfyui.get("/history")), 60)
    worker.restart_files()

    assert worker.ended(running)["status"] == "done"


def test_two_hundred_jobs_outlive_the_death_of_both(start: Start) -> None:
    worker = start()
    worker.upload("given", PICTURE)
    running = worker.post(slow("running"))
    image = "given/input/x.png [output]"
    jobs = [worker.post(rescale(f"job-{n}", image, 10 + n)) for n in range(_MANY)]
    _wait_until_it_runs(worker, running)

    worker.files.kill()
    worker.comfyui.kill()
    worker.comfyui.start()
    worker.restart_files()
    wait_until(lambda: worker.job(jobs[_MANY // 2])["status"] == "done", 60)
    worker.comfyui.kill()
    worker.files.kill()
    worker.restart_files()
    worker.comfyui.start()

    assert "ComfyUI ended while it ran this job" in worker.ended(running)["error"]
    ends = [worker.ended(job) for job in jobs]
    failed = [end for end in ends if end["status"] == "failed"]
    assert all(end["status"] == "done" for end in ends if end not in failed)
    assert all("ComfyUI ended" in end["error"] for end in failed)
    assert len(failed) <= 1
    for end in ends:
        if end["status"] == "done":
            assert [file["name"] for file in end["files"]] == ["rescale_00001_.png"]


def test_a_job_is_seen_and_cancelled_through_another_worker(start: Start) -> None:
    first, second = start(), start()
    running, waiting = first.post(slow("running")), first.post(saved("waiting", "x"))

    wait_until(lambda: (second.job(running)["progress"] or {}).get("nodes_done", 0) > 0, 60)
    assert second.job(running)["status"] == "running"
    assert second.job(running)["worker"] == first.name
    assert second.files.post("/jobs", json=saved(running, "x")).status_code == 409
    for job in (running, waiting):
        assert second.files.post(f"/jobs/{job}/cancel").status_code == 200

    for job in (running, waiting):
        assert second.ended(job)["status"] == "cancelled"
        assert first.job(job)["status"] == "cancelled"
    assert first.comfyui.get("/queue")["queue_running"] == []


def test_a_cleanup_through_another_worker_ends_the_job_first(start: Start) -> None:
    first, second = start(), start()
    running = first.post(slow("running"))
    _wait_until_it_runs(second, running)

    assert second.files.post(f"/cleanup/{running}").status_code == 200

    assert first.files.get(f"/jobs/{running}").status_code == 404
    assert first.comfyui.get("/queue")["queue_running"] == []


def test_the_jobs_of_a_worker_that_is_gone_fail_with_that_cause(start: Start) -> None:
    first, second = start("silence_s=2"), start("silence_s=2")
    jobs = [first.post(slow("running")), first.post(saved("waiting", "x"))]
    _wait_until_it_runs(second, "running")

    first.kill()

    for job in jobs:
        ended = second.ended(job)
        assert ended["status"] == "failed"
        assert ended["error"].startswith(f"its worker {first.name} is gone")
    assert second.files.post("/jobs", json=saved("waiting", "x")).status_code == 202
    assert second.ended("waiting")["status"] == "done"


def test_a_worker_that_was_stopped_has_no_jobs_any_more(start: Start) -> None:
    first, second = start(), start()
    first.post(slow("running"))
    _wait_until_it_runs(second, "running")

    first.stop()

    assert second.ended("running")["error"] == f"its worker {first.name} was stopped"


def test_what_was_given_up_for_lost_stays_so_when_its_worker_comes_back(start: Start) -> None:
    first, second = start(), start("silence_s=0")
    first.post(slow("running", part=0.2))
    _wait_until_it_runs(first, "running")

    assert second.ended("running")["error"].startswith(f"its worker {first.name} is gone")

    wait_until(lambda: first.comfyui.get("/queue")["queue_running"] == [], 60)
    assert first.ended("running")["error"].startswith(f"its worker {first.name} is gone")
