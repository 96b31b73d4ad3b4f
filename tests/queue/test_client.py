"""The example client of the docs, run as its user runs it: on a Pod, and on a queue endpoint beside a gateway."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from morpheus_boot.smoke.samples import png_size
from tests.fileserver.serving import FileServer
from tests.jobs.graphs import PICTURE
from tests.jobs.workers import REPOSITORY, Worker
from tests.queue.handlers import Handler
from tests.queue.inputs import stand_in_only
from tests.testbed.job_queue import API_KEY, JobQueue

CLIENT = REPOSITORY / "docs" / "client" / "morpheus_client.py"


@dataclass(frozen=True)
class Service:
    """What a user has: the addresses of a service, and the volume behind it."""

    environ: dict[str, str]
    volume: Path

    def ask(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(CLIENT), *arguments],
            env={"PATH": os.environ["PATH"], **self.environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def jobs(self) -> set[str]:
        return {job.name for job in (self.volume / "jobs").iterdir()}


@pytest.fixture
def pod(worker: Worker) -> Service:
    return Service({"MORPHEUS_URL": worker.files.url}, worker.volume.root)


@pytest.fixture
def endpoint(
    worker: Worker, shared: Handler, shared_queue: JobQueue, tmp_path: Path
) -> Iterator[Service]:
    (tmp_path / "gateway").mkdir()
    with FileServer(
        tmp_path / "gateway", volume=worker.volume.root, env={"MORPHEUS_TOKEN": "the gateway's"}
    ) as gateway:
        environ = {
            "MORPHEUS_URL": gateway.url,
            "MORPHEUS_TOKEN": "the gateway's",
            "RUNPOD_ENDPOINT_URL": shared_queue.url,
            "RUNPOD_API_KEY": API_KEY,
        }
        yield Service(environ, worker.volume.root)


@pytest.fixture(params=["pod", "endpoint"])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(request.param)
    return found


@stand_in_only
def test_texto_a_imagen_brings_a_picture_and_leaves_nothing_behind(
    service: Service, tmp_path: Path
) -> None:
    before = service.jobs()

    asked = service.ask("texto", 'un faro "al amanecer"', str(tmp_path / "resultados"))

    assert asked.returncode == 0, asked.stderr
    [picture] = asked.stdout.split()
    assert png_size(Path(picture).read_bytes()) == (1024, 1024)
    assert service.jobs() == before


def test_a_picture_goes_up_and_comes_back_rescaled(service: Service, tmp_path: Path) -> None:
    before = service.jobs()
    (tmp_path / "foto.png").write_bytes(PICTURE)

    asked = service.ask("reescalar", str(tmp_path / "foto.png"), str(tmp_path / "resultados"))

    assert asked.returncode == 0, asked.stderr
    [picture] = asked.stdout.split()
    assert png_size(Path(picture).read_bytes()) == (512, 512)
    assert service.jobs() == before


def test_a_job_that_fails_says_why_and_leaves_nothing_behind(
    service: Service, tmp_path: Path
) -> None:
    before = service.jobs()
    (tmp_path / "foto.png").write_bytes(b"no picture at all")

    asked = service.ask("reescalar", str(tmp_path / "foto.png"), str(tmp_path / "resultados"))

    assert asked.returncode != 0
    assert "JobFailed: " in asked.stderr
    assert service.jobs() == before


def test_it_needs_requests_alone() -> None:
    imported = set()
    for node in ast.walk(ast.parse(CLIENT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])

    assert imported - sys.stdlib_module_names == {"requests"}
