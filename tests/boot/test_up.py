"""The whole boot as its user meets it: from nothing to a ready ComfyUI, and down again."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from morpheus_boot.config.settings import read_settings
from tests.boot.given import run_prompt
from tests.boot.program import Program, Site
from tests.testbed.content import read_all, safetensors
from tests.testbed.faults import Gate
from tests.testbed.mounts import fill_up, mounted
from tests.testbed.origin import Origin
from tests.wait import wait_until

SMALL = safetensors(300_000)
# What a boot that fetches nothing needs not wait for.
HEAVY = frozenset({"aiohttp", "fastapi", "huggingface_hub", "requests", "rich"})


def three_models(origin: Origin) -> str:
    """A manifest of three files on a local HTTP server, one of them linked twice, one not required."""
    for name in ("a", "b", "c"):
        origin.serve(f"/{name}.safetensors", SMALL)
    return (
        "version: 1\nmodels:\n"
        f"  - {{path: checkpoints/a.safetensors, url: '{origin.url}/a.safetensors', preload: true}}\n"
        f"  - {{path: loras/b.safetensors, url: '{origin.url}/b.safetensors', links: [vae/b.safetensors]}}\n"
        f"  - {{path: loras/c.safetensors, url: '{origin.url}/c.safetensors', required: false}}\n"
    )


def test_a_cold_boot_comes_up_with_its_models_and_sigterm_ends_it_with_0(
    site: Site, origin: Origin
) -> None:
    site.models = three_models(origin)

    with site.start("up") as up:
        up.wait_until_ready()
        listed = requests.get(f"http://127.0.0.1:{site.comfyui_port}/models/loras", timeout=10)
        assert "b.safetensors" in listed.json()
        wait_until((site.comfyui / "models" / "loras" / "c.safetensors").exists)
        assert up.stop() == 0

    assert (site.volume / "model_cache/checkpoints/a.safetensors").read_bytes() == read_all(SMALL)


def test_a_warm_boot_makes_no_request_and_imports_nothing_heavy_before_comfyuis_exec(
    site: Site, origin: Origin
) -> None:
    site.models = three_models(origin)
    assert site.run("fill").code == 0
    origin.close()
    site.environ = {"PYTHONPROFILEIMPORTTIME": "1"}

    with site.start("up") as up:
        up.wait_until_ready()
        assert "0 need work" in up.log
        assert up.stop(signal.SIGINT) == 0

    before, started, _ = up.log.partition("comfyui started")
    profile = [line for line in before.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in profile}
    assert started
    assert "pydantic" in imported
    assert not imported & HEAVY


def test_during_a_fill_the_file_server_says_how_far_it_is_and_sigterm_ends_it_in_time(
    site: Site, origin: Origin
) -> None:
    site.models = three_models(origin)
    gate = Gate(100_000)
    origin.misbehave("/b.safetensors", gate, after=1)

    with site.start("up") as up:
        gate.wait_reached(20)
        wait_until(lambda: up.ping() == 204)
        assert up.get("/health").status_code == 200
        models = {m["path"]: m["stage"] for m in up.get("/status").json()["models"]}
        assert models["checkpoints/a.safetensors"] == "present"
        assert models["loras/b.safetensors"] == "fetching"
        assert up.stop() == 0


def test_files_serves_the_volume_without_a_comfyui(site: Site, tmp_path: Path) -> None:
    site.comfyui = tmp_path / "nothing-here"

    with site.start("files") as files:
        files.wait_until_ready()
        base = f"http://127.0.0.1:{site.fileserver_port}"
        sent = requests.post(f"{base}/upload", files={"file": ("x.png", b"data")}, timeout=10)
        assert sent.status_code == 200
        assert Path(sent.json()["pod_path"]).read_bytes() == b"data"
        assert files.stop() == 0


def test_with_a_token_both_ports_ask_for_it_and_no_process_log_or_proxy_sees_it(
    site: Site,
) -> None:
    token = "a-token-of-some-length"

    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        site.environ = {"MORPHEUS_TOKEN": token, "http_proxy": url, "HTTP_PROXY": url}
        with site.start("up") as up:
            up.wait_until_ready()
            commands = subprocess.check_output(["ps", "-eo", "args"], text=True)
            for port, path in (
                (site.comfyui_port, "system_stats"),
                (site.fileserver_port, "status"),
            ):
                asked = f"http://127.0.0.1:{port}/{path}"
                bearer = {"Authorization": f"Bearer {token}"}
                assert requests.get(asked, timeout=10).status_code == 401
                assert requests.get(asked, headers=bearer, timeout=10).status_code == 200
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert token not in commands + up.log


def test_comfyui_sees_no_secret_of_ours(site: Site, tmp_path: Path) -> None:
    site.comfyui = tmp_path / "telling"
    site.comfyui.mkdir()
    (site.comfyui / "main.py").write_text(
        "import json, os, signal; print(json.dumps(dict(os.environ)), flush=True); signal.pause()\n"
    )
    site.environ = {
        "HF_TOKEN": "hf_secret",
        "MY_API_KEY": "k3y",
        "CDN_PAT": "p4t-p4t",
        "PIP_INDEX_URL": "https://me:p4ss@pypi.example",
        "PLAIN": "plain",
    }
    site.models = (
        "version: 1\nmodels:\n"
        "  - {path: loras/a.safetensors, url: 'http://127.0.0.1:9/?pat=${CDN_PAT}', required: false}\n"
    )

    with site.start("up") as up:
        wait_until(lambda: '{"' in up.log, timeout_s=30)
        assert up.stop() == 0
        printed = next(line for line in up.log.splitlines() if '{"' in line)

        seen = json.loads(printed[printed.index("{") :])
        assert seen["PLAIN"] == "plain"
        assert set(seen).isdisjoint({*site.environ, "MORPHEUS_LOCAL_DIR"} - {"PLAIN"})
        assert "hf_secret" not in up.log


def pid_of(up: Program, service: str) -> int:
    services = up.get("/status").json()["services"]
    return int(next(s["pid"] for s in services if s["name"] == service))


def test_a_full_disk_of_the_container_ends_nothing(site: Site) -> None:
    with mounted(site.local, "size=4m"), site.start("up") as up:
        up.wait_until_ready()
        comfyui = pid_of(up, "comfyui")
        ballast = fill_up(site.local)

        os.kill(comfyui, signal.SIGKILL)

        wait_until(lambda: "ready again" in up.log, timeout_s=30)
        ballast.unlink()
        assert up.stop() == 0
        assert "Traceback" not in up.log
        assert up.log.count("No space left on device") == 1


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("shared"))
    site.environ = {"MORPHEUS_VOLUME_GB": "20"}
    return site


@pytest.fixture(scope="module")
def ready(shared: Site) -> Iterator[Program]:
    """A ready boot for all that only look at one."""
    with shared.start("up") as up:
        up.wait_until_ready()
        yield up
        assert up.stop() == 0


def test_what_prometheus_reads_of_a_ready_boot(ready: Program) -> None:
    shown = ready.get("/metrics").text.splitlines()

    assert {
        'morpheus_boot_readiness{state="ready"} 1.0',
        'morpheus_service_running{service="comfyui"} 1.0',
        'morpheus_service_running{service="fileserver"} 1.0',
        "morpheus_volume_size_bytes 2e+10",
        "morpheus_volume_answers 1.0",
        "morpheus_comfyui_queue 0.0",
    } <= set(shown)


def test_a_prompt_without_a_job_saves_into_the_containers_own_folder(
    shared: Site, ready: Program
) -> None:
    image = {"width": 8, "height": 8, "batch_size": 1, "color": 0}
    save = {"images": ["1", 0], "filename_prefix": "x"}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "SaveImage", "inputs": save},
    }

    assert run_prompt(ready, shared.comfyui_port, graph) == [
        f"{read_settings(environ=shared.env()).worker}/output/x_00001_.png"
    ]


@pytest.mark.parametrize("command", ["up", "files"])
def test_a_second_boot_is_refused_with_78_and_changes_nothing_for_the_first(
    shared: Site, ready: Program, command: str
) -> None:
    before = ready.get("/status").json()

    second = shared.run(command)

    assert second.code == 78
    assert f"process {before['pid']} boots and serves with {shared.local} already" in second.err
    assert ready.ping() == 200
    assert ready.get("/status").json() == before
    assert "ready" in shared.run("status").out


@pytest.mark.parametrize(
    ("killed", "other"), [("comfyui", "fileserver"), ("fileserver", "comfyui")]
)
def test_a_killed_service_comes_back_and_the_other_never_notices(
    ready: Program, killed: str, other: str
) -> None:
    before = {service: pid_of(ready, service) for service in (killed, other)}

    os.kill(before[killed], signal.SIGKILL)

    wait_until(
        lambda: ready.ping() == 200 and pid_of(ready, killed) != before[killed], timeout_s=30
    )
    assert pid_of(ready, other) == before[other]
