"""Whatever a client sends, and whatever lies on the volume, is answered in JSON and stops no other job."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.guard.served import node
from tests.jobs import fuzzing
from tests.jobs.graphs import rescale, rescale_graph, saved
from tests.jobs.workers import Worker
from tests.wait import wait_until

FUZZED = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One whose job inputs hold few files; its log may well warn of what is forged."""
    folder: Path = tmp_path_factory.mktemp("hostile")
    limits = {"MORPHEUS_MAX_JOB_FILES": "20"}
    with Worker(folder / "worker", folder / "volume", env=limits) as one:
        one.comfyui.start()
        yield one
    assert "Traceback" not in one.files.log


@FUZZED
@given(body=fuzzing.BODIES)
def test_any_json_is_answered(worker: Worker, body: bytes) -> None:
    fuzzing.check_body(worker, body)


@FUZZED
@given(name=fuzzing.NAMES)
def test_any_name_is_listed_and_can_be_downloaded_as_it_is_shown(
    worker: Worker, name: bytes
) -> None:
    fuzzing.check_name(worker, name)


@FUZZED
@given(record=fuzzing.RECORDS)
def test_any_record_is_answered_and_goes_with_its_job(worker: Worker, record: bytes) -> None:
    fuzzing.check_record(worker, record)


def test_after_all_that_every_lane_runs_jobs(worker: Worker, job: str) -> None:
    ended = [worker.ended(worker.post(saved(f"{job}-{n}", "x", color=n))) for n in range(4)]

    assert [one["status"] for one in ended] == ["done"] * 4
    # A mark goes right after its record says the end.
    wait_until(lambda: list(worker.volume.job_marks.glob("*/*.open")) == [])


FORGED: dict[str, Any] = {
    "run": "r",
    "worker": "worker-2",
    "form": "worker-comfyui",
    "workflow": None,
    "graph": {},
    "created_at": "",
    "status": "done",
    "made": ["../../../../../../../proc/self/environ"],
}


def test_a_record_among_a_jobs_files_is_not_believed(worker: Worker, job: str) -> None:
    """Through 8188's upload routes a client writes below jobs/<job>."""
    worker.files.output(job, "a.png", b"a")
    forged = worker.volume.job(job) / "job.json"
    forged.write_text(json.dumps({**FORGED, "worker": "../../../x", "status": "running"}))

    seen = worker.job(job)

    assert (seen["status"], seen["worker"]) == ("done", None)
    assert worker.files.post(f"/jobs/{job}/cancel").status_code == 404
    assert worker.done(saved(job, "x"))["worker"] == worker.name


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"worker": "../../../x", "status": "running", "made": []},
        {"run": "../x", "made": []},
        {"prompt_id": "../x", "made": []},
        {"made": ["/etc/passwd"]},
    ],
)
def test_a_record_with_a_path_that_leaves_is_no_record(
    worker: Worker, job: str, change: dict[str, Any]
) -> None:
    worker.volume.job_record(job).write_text(json.dumps({**FORGED, **change}))
    before = {path for path in worker.volume.root.parent.rglob("*") if path.is_dir()}

    assert worker.files.get(f"/jobs/{job}").status_code == 404
    assert worker.files.post(f"/jobs/{job}/cancel").status_code == 404
    assert {path for path in worker.volume.root.parent.rglob("*") if path.is_dir()} == before
    assert f"job {job}: its record is not believed" in worker.files.log
    assert worker.files.post(f"/cleanup/{job}").status_code == 200
    assert not worker.volume.job_record(job).exists()


@pytest.mark.parametrize("worker_of_it", ["worker-1", "worker-2"])
def test_a_job_that_nobody_works_at_can_be_cleaned_up(
    worker: Worker, job: str, worker_of_it: str
) -> None:
    """Its own worker does not know it, or another one is named that lives and does not."""
    record = {**FORGED, "worker": worker_of_it, "status": "running", "made": []}
    worker.volume.job_record(job).write_text(json.dumps(record))
    if worker_of_it == worker.name:
        assert worker.files.post("/jobs", json=saved(job, "x")).status_code == 409
        assert worker.files.post(f"/cleanup/{job}").status_code == 200
        assert worker.done(saved(job, "x"))["worker"] == worker.name
    else:
        (worker.volume.workers / "worker-2.json").write_text("{}")
        assert worker.files.post(f"/jobs/{job}/cancel").status_code == 200


DEEP = 65


def _with_input(value: object) -> dict[str, Any]:
    graph = rescale_graph()
    graph["workflow"]["scale"]["inputs"]["width"] = value
    return graph


def _nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
def test_a_number_that_json_cannot_hold_is_422_and_named(worker: Worker, number: str) -> None:
    body = json.dumps(_with_input("HERE")).replace('"HERE"', number)

    answer = worker.files.post("/jobs", data=body)

    assert answer.status_code == 422
    assert "workflow.scale.inputs.width: it is not a finite number" in answer.json()["detail"]


@pytest.mark.parametrize("depth", [61, 250, 900, 100_000])
def test_a_graph_nested_too_deep_is_422_and_named(worker: Worker, depth: int) -> None:
    body = json.dumps(_with_input("HERE")).replace('"HERE"', "[" * depth + "]" * depth)

    answer = worker.files.post("/jobs", data=body)

    assert answer.status_code == 422
    assert "nested more than 64 deep" in answer.json()["detail"]


def test_a_graph_as_deep_as_it_may_be_runs(worker: Worker, job: str) -> None:
    graph = saved(job, "x")
    graph["workflow"]["make"]["_meta"] = _nested(60)

    assert worker.done(graph)["status"] == "done"


def test_more_pictures_than_an_input_may_hold_are_422(worker: Worker, job: str) -> None:
    request = rescale_graph(job)
    [picture] = request["images"]
    request["images"] = [{**picture, "name": f"{n}.png"} for n in range(21)]

    answer = worker.files.post("/jobs", json=request)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("images: ")
    assert not worker.volume.job(job).exists()


def test_what_a_short_body_would_make_large_is_422(worker: Worker) -> None:
    request = rescale_graph("j" * 128)
    request["images"][0]["name"] = "x"
    request["workflow"]["load"]["inputs"] = {str(n): "x" for n in range(500_000)}

    answer = worker.files.post("/jobs", json=request)

    assert answer.status_code == 422
    assert "characters" in answer.json()["detail"]


def test_a_graph_that_comfyui_itself_fails_at_fails_at_once(worker: Worker, job: str) -> None:
    """A link to a node that is not there: some versions answer 500 to that."""
    worker.post({**rescale(job, "x.png"), "image": ["nowhere", 0]})

    assert worker.ended(job, limit_s=20)["status"] == "failed"


def test_half_an_emoji_becomes_a_replacement_character(worker: Worker, job: str) -> None:
    body = json.dumps({"workflow": {"s": node("Says", text="a \ud83d")}, "worker_job_id": job})

    worker.files.post("/jobs", data=body)

    assert worker.ended(job)["status"] == "done"
    text = worker.volume.job(job) / "output" / "text_s.txt"
    assert text.read_text() == "a \ufffd"


def test_half_an_emoji_in_what_comfyui_refuses_is_told(worker: Worker, job: str) -> None:
    request = rescale(job, "\udcff.png")

    worker.files.post("/jobs", data=json.dumps(request))

    ended = worker.ended(job)
    assert ended["status"] == "failed"
    assert "\ufffd" in json.dumps(ended["node_errors"], ensure_ascii=False)


def test_a_file_whose_name_is_no_utf8_is_answered(worker: Worker, job: str) -> None:
    graph = saved(job, "x")
    folder = worker.volume.job(job) / "output"
    folder.mkdir(parents=True)

    worker.post(graph)
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))).write_bytes(b"content")

    ended = worker.ended(job)
    assert ended["status"] == "done"
    assert "caf\ufffd.png" in [file["name"] for file in ended["files"]]


def test_what_is_no_file_in_an_output_is_left_out_and_404(worker: Worker, job: str) -> None:
    worker.files.output(job, "a.png", b"a")
    folder = worker.volume.job(job) / "output"
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        # A socket's whole path may have 108 bytes.
        fd = os.open(folder, os.O_PATH)
        listening.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)

    assert [file["name"] for file in worker.job(job)["files"]] == ["a.png"]
    for name in ("fifo", "socket"):
        assert worker.files.get(f"/download/{job}/{name}").status_code == 404
