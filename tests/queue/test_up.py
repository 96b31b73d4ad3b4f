"""A worker of a queue endpoint, booted as RunPod does it: its third service takes the queue's jobs."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from morpheus_boot.smoke.samples import filler
from tests.boot.program import Program, Site
from tests.queue.inputs import creation, picture_graph
from tests.testbed.job_queue import JobQueue
from tests.wait import wait_until

# 190 MB in small files are packed, and unpacked.
UNPACKED_LIMIT_S = 120
TOKEN = "a-token-of-some-length"
# No index answers here, neither pip nor uv.
NO_NETWORK = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
    "UV_OFFLINE": "1",
}


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder that is not on the container's own disk, which RunPod's workers want."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("/dev/shm is no mount point")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_below(tmp_path)


def site_below(root: Path) -> Site:
    """A container with a models.yaml that names one checkpoint."""
    site = Site(root)
    (root / "flux1-dev-fp8.safetensors").write_bytes(filler(100_000, seed=1))
    site.models = (
        "version: 1\nmodels:\n"
        f"  - {{path: checkpoints/flux1-dev-fp8.safetensors, url: 'file://{root}/flux1-dev-fp8.safetensors'}}\n"
    )
    return site


def status(site: Site) -> dict[str, Any]:
    url = f"http://127.0.0.1:{site.fileserver_port}/status"
    answer = requests.get(url, headers={"X-Morpheus-Token": TOKEN}, timeout=10)
    found: dict[str, Any] = answer.json()
    return found


def pid_of(site: Site, name: str) -> int:
    return int(next(s["pid"] for s in status(site)["services"] if s["name"] == name))


def test_a_worker_of_a_queue_endpoint_from_boot_to_stop(
    mounted: Path, queue: JobQueue, sdk_python: Path
) -> None:
    site = site_below(mounted)
    site.environ = {
        **queue.environ("pod-1"),
        "COMFYUI_PYTHON": str(sdk_python),
        "MORPHEUS_TOKEN": TOKEN,
        "HF_TOKEN": "hf_of-nobodys-business",
        "CIVITAI_TOKEN": "civitai-of-nobodys-business",
        "MY_API_KEY": "key-of-nobodys-business",
    }
    with site.start("up") as up:
        up.wait_until_ready()
        named, graph = queue.put(creation()), queue.put(picture_graph())
        assert Path(queue.wait(named).output["image_pod_path"]).is_file()
        assert queue.wait(graph).output["images"][0]["type"] == "base64"
        wait_until(lambda: f"queue      {graph.id}: Finished." in up.log)

        wait_until(lambda: {ping["worker"] for ping in queue.pings} == {"pod-1"})
        assert "WARNING" not in up.log
        assert "ERROR" not in up.log
        the_handler_is_told_no_secret_but_its_own(site, up)
        what_dies_is_started_again_and_costs_no_job(site, queue)

        assert up.stop() == 0
        ended = re.findall(r"(\w+) ended: ", up.log.partition("SIGTERM: stopping")[2])
        assert ended == ["queue", "comfyui", "fileserver"]


def the_handler_is_told_no_secret_but_its_own(site: Site, up: Program) -> None:
    environ = Path(f"/proc/{pid_of(site, 'queue')}/environ").read_text().split("\0")
    names = {entry.partition("=")[0] for entry in environ}
    assert {"RUNPOD_AI_API_KEY", "RUNPOD_WEBHOOK_GET_JOB", "MORPHEUS_TOKEN"} <= names
    assert not any("nobodys-business" in entry for entry in environ)
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert TOKEN not in commands.stdout
    assert TOKEN not in up.log


def what_dies_is_started_again_and_costs_no_job(site: Site, queue: JobQueue) -> None:
    long = queue.put(creation(steps=150))
    queue.wait_until_taken(long)
    os.kill(pid_of(site, "fileserver"), signal.SIGKILL)
    assert queue.wait(long).error is None

    handler = pid_of(site, "queue")
    os.kill(handler, signal.SIGKILL)
    wait_until(lambda: pid_of(site, "queue") != handler)
    assert queue.wait(queue.put(creation())).error is None


def test_a_warm_volume_needs_no_network(site: Site, queue: JobQueue, sdk_python: Path) -> None:
    # Neither ComfyUI's Python nor python3 has the SDK here. Its installation is what sdk_python's has left; how the
    # boot comes to it stands in test_sdk.py.
    shutil.copytree(sdk_python.parents[1], site.local / "queue" / "venv-made", symlinks=True)
    site.environ = {**queue.environ(), **NO_NETWORK}
    with site.start("up") as up:
        up.wait_until_ready(UNPACKED_LIMIT_S)
        assert "installing RunPod's SDK" in up.log
        assert queue.wait(queue.put(creation())).error is None
        assert up.stop() == 0
    [archive] = (site.volume / ".morpheus" / "archives" / "serverless").glob("*.tar.gz")
    shutil.rmtree(site.local)

    with site.start("up") as up:
        up.wait_until_ready(UNPACKED_LIMIT_S)
        assert "installing" not in up.log
        assert queue.wait(queue.put(creation())).error is None
        assert up.stop() == 0
    assert archive.is_file()


def test_an_sdk_that_can_not_be_had_ends_the_boot_with_69(site: Site, queue: JobQueue) -> None:
    site.environ = {**queue.environ(), **NO_NETWORK}

    ended = site.run("up")

    assert ended.code == 69
    assert "package index" in ended.err
    assert "Traceback" not in ended.err
