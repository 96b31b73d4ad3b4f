"""A worker of a load-balancing endpoint: the file server answers on the ports that RunPod sends to."""

import re
from pathlib import Path

import pytest
import requests

from tests.boot.program import Program, Site
from tests.fileserver.serving import free_port
from tests.queue.inputs import picture_graph
from tests.testbed.content import safetensors
from tests.testbed.faults import Gate
from tests.testbed.origin import Origin
from tests.wait import wait_until


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def ping(port: int) -> int:
    """What RunPod's health check gets; 0 where nothing listens."""
    try:
        return requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).status_code
    except requests.ConnectionError:
        return 0


def said_to_listen_on(up: Program) -> list[str]:
    return str(re.findall(r"listening on port (.*)", up.log)[0]).split(", ")


def test_ping_is_204_while_it_fills_and_200_when_jobs_can_come(site: Site, origin: Origin) -> None:
    port, health = free_port(), free_port()
    site.environ = {
        "RUNPOD_ENDPOINT_ID": "endpoint1",
        "PORT": str(port),
        "PORT_HEALTH": str(health),
    }
    content = safetensors(300_000)
    origin.serve("/a.safetensors", content)
    gate = Gate(100_000)
    origin.misbehave("/a.safetensors", gate, after=1)
    site.models = (
        "version: 1\nmodels:\n"
        f"  - {{path: loras/a.safetensors, url: '{origin.url}/a.safetensors', size: {content.size_bytes}}}\n"
    )
    with site.start("up") as up:
        gate.wait_reached(20)
        wait_until(lambda: ping(port) == ping(health) == 204)
        gate.open()
        wait_until(lambda: ping(port) == ping(health) == 200, 30)

        posted = requests.post(f"http://127.0.0.1:{port}/jobs", json=picture_graph(), timeout=10)
        assert posted.status_code == 202
        job = posted.json()["worker_job_id"]
        wait_until(
            lambda: (
                requests.get(f"http://127.0.0.1:{port}/jobs/{job}", timeout=10).json()["status"]
                == "done"
            )
        )
        assert up.stop() == 0


def test_ping_is_503_once_the_boot_has_failed(site: Site) -> None:
    port = free_port()
    site.models = "version: 1\nmodles: []\n"
    site.environ = {"PORT": str(port), "MORPHEUS_HOLD_S": "60"}

    with site.start("up") as up:
        wait_until(lambda: ping(port) == 503, 20)
        assert up.stop() == 65


def test_port_equal_to_comfyuis_ends_with_78(site: Site) -> None:
    site.environ = {"PORT": str(site.comfyui_port)}

    ended = site.run("up")

    assert ended.code == 78
    assert "PORT" in ended.err
    assert "COMFYUI_PORT" in ended.err


def test_a_health_port_that_is_comfyuis_and_ports_that_are_one_are_left_out(site: Site) -> None:
    site.environ = {"PORT": str(site.fileserver_port), "PORT_HEALTH": str(site.comfyui_port)}

    with site.start("up") as up:
        up.wait_until_ready()
        assert said_to_listen_on(up) == [str(site.fileserver_port)]
        assert up.stop() == 0


def test_a_health_port_alone_is_served(site: Site) -> None:
    health = free_port()
    site.environ = {"PORT_HEALTH": str(health)}

    with site.start("files") as files:
        files.wait_until_ready()
        assert ping(health) == 200
        assert files.stop() == 0
