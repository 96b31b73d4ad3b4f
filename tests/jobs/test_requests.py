"""What is wrong with a job is told by the name of the field, before anything of it lies on the volume."""

import json
from typing import Any

import pytest

from tests.guard.served import node
from tests.jobs.graphs import rescale, rescale_graph
from tests.jobs.workers import Worker

_GRAPH = {"1": node("EmptyImage", width=8, height=8, batch_size=1, color=0)}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"input": 7}', b"\xff"])
def test_what_is_no_json_object_is_400(worker: Worker, body: bytes) -> None:
    assert worker.files.post("/jobs", data=body).status_code == 400


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"workflow_name": "nowhere"}, "workflow_name"),
        ({"workflow_name": "../rescale"}, "workflow_name"),
        ({"workflow_name": 7}, "workflow_name"),
        ({"worker_job_id": "../x"}, "worker_job_id"),
        ({"worker_job_id": "checkpoints"}, "worker_job_id"),
        ({"worker_job_id": 7}, "worker_job_id"),
        ({"hight": 7}, "hight"),
        ({"output_path": "x"}, "output_path"),
        ({"workflow": _GRAPH}, "workflow"),
    ],
)
def test_a_wrong_field_of_a_workflow_by_name_is_422(
    worker: Worker, job: str, change: dict[str, Any], named: str
) -> None:
    answer = worker.files.post("/jobs", json={**rescale(job, "x.png"), **change})

    assert answer.status_code == 422
    assert named in answer.json()["detail"]
    assert not (worker.volume.jobs / job).exists()


def test_a_missing_parameter_is_422_and_named(worker: Worker, job: str) -> None:
    request = rescale(job, "x.png")
    del request["width"], request["height"]

    answer = worker.files.post("/jobs", json=request)

    assert answer.status_code == 422
    assert "width is missing; height is missing" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"comfy_org_api_key": "k"}, "comfy_org_api_key"),
        ({"api_key_comfy_org": "k"}, "api_key_comfy_org"),
        ({"s3": {"bucket": "b"}}, "s3"),
        ({"workflow": []}, "workflow"),
        ({"workflow": {}}, "workflow"),
        ({"workflow": {"nodes": [], "links": []}}, "workflow"),
        ({"images": {}}, "images"),
        ({"images": [{"name": "a"}]}, "images.0.image"),
        ({"images": [{"name": "a", "image": "%%%"}]}, "images.0.image"),
        ({"images": [{"name": "a", "image": ""}]}, "images.0.image"),
        ({"images": [{"name": "a", "image": "AAAA", "kind": "x"}]}, "images.0.kind"),
        ({"images": [{"name": n, "image": "AAAA"} for n in ("b", "x/b")]}, "images.1.name"),
    ],
)
def test_a_wrong_field_of_a_graph_is_422(
    worker: Worker, job: str, change: dict[str, Any], named: str
) -> None:
    answer = worker.files.post("/jobs", json={**rescale_graph(job), **change})

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{named}: ")
    assert not (worker.volume.jobs / job).exists()


def test_neither_form_is_422(worker: Worker) -> None:
    answer = worker.files.post("/jobs", json={"prompt": "x"})

    assert answer.status_code == 422
    assert "workflow_name" in answer.json()["detail"]


def test_a_body_beyond_the_limit_is_413(worker: Worker) -> None:
    answer = worker.files.post("/jobs", data=b" " * 64_000_001)

    assert answer.status_code == 413


def test_a_picture_may_come_as_a_data_uri_with_line_breaks_and_any_name(
    worker: Worker, job: str
) -> None:
    request = rescale_graph(job)
    text = request["images"][0]["image"]
    broken = "\n".join(text[at : at + 20] for at in range(0, len(text), 20))
    request["images"][0] = {"name": "a: picture?.png", "image": f"data:image/png;base64,{broken}"}
    request["workflow"]["load"]["inputs"]["image"] = "a: picture?.png"

    worker.done(request)

    assert (worker.volume.jobs / job / "input" / "a_ picture_.png").is_file()


@pytest.mark.parametrize("name", ["face.png", "clipspace/m.png"])
def test_a_picture_may_be_named_with_its_folder_behind_it(
    worker: Worker, job: str, name: str
) -> None:
    request = rescale_graph(job)
    request["images"][0]["name"] = name
    request["workflow"]["load"]["inputs"]["image"] = f"{name} [input]"

    worker.done(request)


@pytest.mark.parametrize("beside", [{}, {"id": "a1", "webhook": "https://example.com/h"}])
def test_a_job_as_runpod_wraps_it_is_taken(
    worker: Worker, job: str, beside: dict[str, Any]
) -> None:
    ended = worker.done({**beside, "input": rescale_graph(job)})

    assert ended["worker_job_id"] == job


def test_a_graph_as_comfyui_takes_it_is_taken(worker: Worker, job: str) -> None:
    request = rescale_graph(job)
    request["prompt"] = request.pop("workflow")

    assert worker.done({**request, "client_id": "c"})["worker_job_id"] == job


def test_what_comfyui_ignores_of_a_node_is_ignored(worker: Worker, job: str) -> None:
    request = rescale_graph(job)
    request["workflow"]["load"]["is_changed"] = [float("nan")]
    content = json.dumps(request)

    answer = worker.files.post("/jobs", data=content)

    assert answer.status_code == 202
    worker.ended(job)


def test_a_text_stays_a_text(worker: Worker, job: str) -> None:
    said = 'a "quote", a \\ and __param:width__'
    worker.files.post("/jobs", json=rescale(job, said))

    record = json.loads(worker.volume.job_record(job).read_text())

    assert record["graph"]["load"]["inputs"]["image"] == said
    assert record["graph"]["scale"]["inputs"]["width"] == 16
    worker.ended(job)
