"""Whatever dies, no job is lost silently: each ends done, or failed with its cause."""

import itertools
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs.graphs import PICTURE, rescale, saved, slow
from tests.jobs.workers import Worker
from tests.wait import wait_until

Start = Callable[..., Worker]

_MANY = 200
_SILENCE = "silence_s=4"
_numbers = itertools.count(1)


def _worker(volume: Path, *times: str) -> Worker:
    name = f"worker-{next(_numbers)}"
    command = [sys.executable, "-m", "tests.jobs.impatient", *times]
    return Worker(volume.parent / name, volume, name, command)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deaths") / "volume"


@pytest.fixture(scope="module")
def _one(volume: Path) -> Iterator[Worker]:
    with _worker(volume, _SILENCE) as worker:
        yield worker


@pytest.fixture
def worker(_one: Worker) -> Worker:
    """One whose services a test may kill."""
    _one.revive()
    return _one


@pytest.fixture(scope="module")
def observer(volume: Path) -> Iterator[Worker]:
    """Another one of the same volume, which no test kills."""
    with _worker(volume, _SILENCE) as other:
        other.comfyui.start()
        yield other


@pytest.fixture
def start(volume: Path) -> Iterator[Start]:
    """Starts a worker of the test's own; ``times`` as impatient.py takes them."""
    running: list[Worker] = []

    def begin(*times: str, comfyui: bool = True) -> Worker:
        running.append(_worker(volume, *times))
        if comfyui:
            running[-1].comfyui.start()
        return running[-1]

    yield begin
    for one in running:
        one.stop()


@pytest.fixture
def job() -> str:
    """A job's id that no other test uses."""
    return f"job-{next(_numbers)}"


def _wait_until_it_runs(worker: Worker, job: str) -> None:
    wait_until(lambda: worker.job(job)["status"] == "running", 60)


def test_a_job_that_comes_while_comfyui_is_gone_waits_for_it(worker: Worker, job: str) -> None:
    worker.comfyui.kill()
    worker.post(saved(job, "x"))
    assert worker.job(job)["status"] == "queued"

    worker.comfyui.start()

    assert worker.ended(job)["status"] == "done"


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


def test_comfyui_dying_in_a_job_fails_that_one_and_the_next_ones_run(
    worker: Worker, job: str
) -> None:
    running = worker.post(slow(f"{job}-running"))
    behind = [worker.post(saved(f"{job}-{n}", "x")) for n in range(5)]
    _wait_until_it_runs(worker, running)

    worker.comfyui.kill()

    ended = worker.ended(running)
    assert ended["status"] == "failed"
    assert "ComfyUI ended while it ran this job" in ended["error"]
    worker.comfyui.start()
    assert [worker.ended(job)["status"] for job in behind] == ["done"] * 5


def test_a_restarted_file_server_follows_the_job_that_goes_on(worker: Worker, job: str) -> None:
    running = worker.post(slow(f"{job}-running", part=0.03))
    behind = worker.post(saved(f"{job}-behind", "x"))
    _wait_until_it_runs(worker, running)

    worker.files.kill()
    worker.restart_files()

    assert worker.ended(running)["status"] == "done"
    assert worker.job(running)["output"]["images"][0]["filename"].endswith("_00001_.png")
    assert worker.ended(behind)["status"] == "done"
    assert [file["name"] for file in worker.job(behind)["files"]] == ["x_00001_.png"]


def test_a_job_whose_end_nobody_saw_is_read_from_comfyuis_history(worker: Worker, job: str) -> None:
    running = worker.post(slow(f"{job}-running", part=0.02))
    _wait_until_it_runs(worker, running)

    worker.files.kill()
    wait_until(lambda: bool(worker.comfyui.get("/history")), 60)
    worker.restart_files()

    assert worker.ended(running)["status"] == "done"


def test_two_hundred_jobs_outlive_the_death_of_both(worker: Worker, job: str) -> None:
    image = worker.upload(job, PICTURE)
    running = worker.post(slow(f"{job}-running"))
    jobs = [worker.post(rescale(f"{job}-{n}", image, 10 + n)) for n in range(_MANY)]
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
    # Each death of ComfyUI may take the one that it runs.
    assert len(failed) <= 2
    for end in ends:
        if end["status"] == "done":
            assert [file["name"] for file in end["files"]] == ["rescale_00001_.png"]


def test_a_job_is_seen_and_cancelled_through_another_worker(
    worker: Worker, observer: Worker, job: str
) -> None:
    running, waiting = worker.post(slow(f"{job}-r")), worker.post(saved(f"{job}-w", "x"))

    wait_until(lambda: (observer.job(running)["progress"] or {}).get("nodes_done", 0) > 0, 60)
    assert observer.job(running)["status"] == "running"
    assert observer.job(running)["worker"] == worker.name
    assert observer.files.post("/jobs", json=saved(running, "x")).status_code == 409
    for one in (waiting, running):  # the other way round it is done before its worker looks
        assert observer.files.post(f"/jobs/{one}/cancel").status_code == 200
        assert observer.ended(one)["status"] == "cancelled"
        assert worker.job(one)["status"] == "cancelled"
    assert worker.comfyui.get("/queue")["queue_running"] == []


def test_a_cleanup_through_another_worker_ends_the_job_first(
    worker: Worker, observer: Worker, job: str
) -> None:
    worker.post(slow(job))
    _wait_until_it_runs(observer, job)

    assert observer.files.post(f"/cleanup/{job}").status_code == 200

    assert worker.files.get(f"/jobs/{job}").status_code == 404
    assert worker.comfyui.get("/queue")["queue_running"] == []


def test_the_jobs_of_a_worker_that_is_gone_fail_with_that_cause(
    start: Start, observer: Worker, job: str
) -> None:
    first = start()
    jobs = [first.post(slow(f"{job}-r")), first.post(saved(f"{job}-w", "x"))]
    _wait_until_it_runs(observer, jobs[0])
    assert observer.job(jobs[1])["status"] == "queued"

    first.kill()

    for one in jobs:
        ended = observer.ended(one)
        assert ended["status"] == "failed"
        assert ended["error"].startswith(f"its worker {first.name} is gone")
    assert observer.done(saved(jobs[1], "x"))["worker"] == observer.name


def test_a_worker_that_was_stopped_has_no_jobs_any_more(
    start: Start, observer: Worker, job: str
) -> None:
    first = start()
    first.post(slow(job))
    _wait_until_it_runs(observer, job)

    first.stop()

    assert observer.ended(job)["error"] == f"its worker {first.name} was stopped"


def test_what_was_given_up_for_lost_stays_so_when_its_worker_comes_back(
    start: Start, observer: Worker, job: str
) -> None:
    first = start()
    first.post(slow(job))
    _wait_until_it_runs(first, job)

    first.files.process.send_signal(signal.SIGSTOP)
    first.fall_silent()
    assert observer.ended(job)["error"].startswith(f"its worker {first.name} is gone")
    first.files.process.send_signal(signal.SIGCONT)

    wait_until(lambda: first.comfyui.get("/queue")["queue_running"] == [], 60)
    assert first.ended(job)["error"].startswith(f"its worker {first.name} is gone")
