"""Jobs in a worker that `up` has booted, and at a gateway."""

import shutil
from pathlib import Path

import pytest
import requests

from tests.boot.program import REPOSITORY, Program, Site
from tests.jobs.graphs import PICTURE, rescale
from tests.wait import wait_until


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _post(site: Site, path: str, body: object) -> requests.Response:
    return requests.post(f"http://127.0.0.1:{site.fileserver_port}{path}", json=body, timeout=10)


def _upload(site: Site, job: str) -> str:
    sent = requests.post(
        f"http://127.0.0.1:{site.fileserver_port}/upload",
        files={"file": ("x.png", PICTURE)},
        data={"worker_job_id": job},
        timeout=10,
    )
    return str(sent.json()["comfy_path"])


def _ended(up: Program, job: str) -> str:
    statuses: list[str] = []

    def over() -> bool:
        statuses.append(up.get(f"/jobs/{job}").json()["status"])
        return statuses[-1] not in {"queued", "running"}

    wait_until(over, 30)
    return statuses[-1]


def test_a_job_posted_before_comfyui_is_up_waits_for_it(site: Site) -> None:
    with site.start("up") as up:
        wait_until(lambda: up.ping() != 0, 30)
        image = _upload(site, "early")

        answer = _post(site, "/jobs", rescale("early", image))

        assert answer.status_code == 202, answer.text
        assert _ended(up, "early") == "done"
        assert up.stop() == 0


def test_a_gateway_refuses_jobs_and_keeps_the_workflows_up_to_date(site: Site) -> None:
    copies = site.volume / "morpheus_lib" / "workflows"
    shutil.copytree(REPOSITORY / "workflows", copies)
    (copies / "rescale.json").write_text("{}")
    (copies / "mine.json").write_text("{}")
    untouched = (copies / "creation.json").stat().st_ino

    with site.start("files") as files:
        files.wait_until_ready()
        answer = _post(site, "/jobs", rescale("j", "x.png"))
        assert answer.status_code == 503
        assert "gateway without ComfyUI" in answer.json()["detail"]
        assert files.get("/jobs/j").status_code == 404
        assert files.stop() == 0

    assert "LoadImage" in (copies / "rescale.json").read_text()
    assert (copies / "creation.json").stat().st_ino == untouched
    assert (copies / "mine.json").read_text() == "{}"
