"""The SDK's own local test server (``--rp_serve_api``) in front of the handler, as a developer runs it."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from morpheus_boot.smoke.samples import png_size
from tests.fileserver.serving import free_port
from tests.jobs.workers import Worker
from tests.queue.handlers import Handler
from tests.queue.inputs import creation, picture_graph, stand_in_only
from tests.wait import wait_until


@pytest.fixture(scope="module")
def url(
    worker: Worker, sdk_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("local-server") / "log"
    arguments = ("--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port))
    environ = {"FILESERVER_PORT": str(worker.files.port)}
    with Handler(sdk_python, log, environ, *arguments) as handler:

        def listens() -> bool:
            assert handler.process.poll() is None, handler.log
            try:
                return requests.get(f"http://127.0.0.1:{port}/", timeout=5).ok
            except requests.ConnectionError:
                return False

        wait_until(listens, 30)
        yield f"http://127.0.0.1:{port}"


def run(url: str, request: dict[str, Any]) -> dict[str, Any]:
    answer = requests.post(f"{url}/runsync", json={"input": request}, timeout=30)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


@stand_in_only
def test_both_forms_are_answered(url: str, job: str) -> None:
    named = run(url, creation(worker_job_id=job))
    graph = run(url, picture_graph())

    assert named["status"] == graph["status"] == "COMPLETED"
    assert png_size(Path(named["output"]["image_pod_path"]).read_bytes()) == (64, 32)
    assert png_size(base64.b64decode(graph["output"]["images"][0]["data"])) == (8, 4)


def test_an_error_is_the_sdks_failed(url: str) -> None:
    failed = run(url, creation(checkpoint_name="none.safetensors"))

    assert failed["status"] == "FAILED"
    assert "value_not_in_list" in failed["error"]
