"""What ends a job before its time, and what ends the handler: RunPod's stop channel, SIGTERM, SIGKILL."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_boot.smoke.samples import png_size
from tests.jobs.workers import Worker
from tests.queue.handlers import Handler, handler_of
from tests.queue.inputs import picture_graph, slow_graph
from tests.testbed.job_queue import JobQueue, QueuedJob
from tests.wait import wait_until


@pytest.fixture
def handler(queue: JobQueue, worker: Worker, sdk_python: Path) -> Iterator[Handler]:
    with handler_of(queue, worker, sdk_python) as one:
        yield one


def wait_until_it_runs(worker: Worker, job: QueuedJob) -> None:
    def runs() -> None:
        assert worker.files.get(f"/jobs/{job.id}").json().get("status") == "running"

    wait_until(runs)


def wait_until_comfyui_is_idle(worker: Worker) -> None:
    wait_until(lambda: worker.comfyui.get("/prompt")["exec_info"]["queue_remaining"] == 0)


def test_a_stop_signal_interrupts_the_job_in_comfyui_and_the_next_one_works(
    handler: Handler, queue: JobQueue, worker: Worker
) -> None:
    long = queue.put(slow_graph())
    wait_until_it_runs(worker, long)

    queue.stop(long)

    wait_until_comfyui_is_idle(worker)
    assert worker.ended(long.id)["status"] == "cancelled"
    assert queue.wait(queue.put(picture_graph())).error is None
    assert long.results == []


def test_sigterm_leaves_the_job_to_another_worker_and_ends_in_time(
    queue: JobQueue, worker: Worker, sdk_python: Path
) -> None:
    with handler_of(queue, worker, sdk_python, "pod-1") as first:
        long = queue.put(slow_graph())
        wait_until_it_runs(worker, long)
        assert first.stop() == 0
    assert long.results == []
    assert worker.ended(long.id)["status"] == "cancelled"
    wait_until_comfyui_is_idle(worker)

    long.input = picture_graph()
    queue.put_again(long)
    with handler_of(queue, worker, sdk_python, "pod-2"):
        assert queue.wait(long).error is None


def test_sigterm_of_an_idle_handler_does_not_wait_for_its_poll(
    handler: Handler, queue: JobQueue
) -> None:
    assert handler.stop() == 0


@pytest.mark.parametrize("ended", [False, True], ids=["while it runs", "when it has ended"])
def test_a_job_that_is_delivered_again_after_a_kill_is_run_once(
    queue: JobQueue, worker: Worker, sdk_python: Path, ended: bool
) -> None:
    with handler_of(queue, worker, sdk_python, "pod-1") as first:
        asked = queue.put(slow_graph(0.02 if ended else 0.05))
        wait_until_it_runs(worker, asked)
        first.kill()
    if ended:
        worker.ended(asked.id)
    queue.put_again(asked)

    with handler_of(queue, worker, sdk_python, "pod-2"):
        queue.wait(asked)

    assert asked.error is None
    assert len(asked.output["images"]) == 1
    assert len(list((worker.volume.jobs / asked.id / "output").iterdir())) == 1


def test_a_job_of_an_id_that_is_taken_waits_for_the_other_and_gets_its_own_answer(
    handler: Handler, queue: JobQueue, worker: Worker, job: str
) -> None:
    worker.post(slow_graph(0.02, worker_job_id=job))

    asked = queue.wait(queue.put(picture_graph(worker_job_id=job)))

    [image] = asked.output["images"]
    assert png_size(base64.b64decode(image["data"])) == (8, 4)
