"""The whole boot as its user meets it: from nothing to a ready ComfyUI, and down again."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import requests

from tests.boot.program import Program, Site
from tests.testbed.content import read_all, safetensors
from tests.testbed.faults import Gate
from tests.testbed.mounts import fill_up, mounted
from tests.testbed.origin import Origin
from tests.wait import wait_until

SMALL = safetensors(300_000)
# What a boot that fetches nothing needs not wait for.
HEAVY = frozenset({"aiohttp", "fastapi", "huggingface_hub", "requests", "rich"})


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


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


def test_what_prometheus_reads_of_a_ready_boot(site: Site, origin: Origin) -> None:
    site.models = three_models(origin)
    site.environ = {"MORPHEUS_VOLUME_GB": "20"}

    with site.start("up") as up:
        up.wait_until_ready()
        shown = up.get("/metrics").text.splitlines()
        assert up.stop() == 0

    assert 'morpheus_boot_readiness{state="ready"} 1.0' in shown
    assert 'morpheus_service_running{service="comfyui"} 1.0' in shown
    assert 'morpheus_service_running{service="fileserver"} 1.0' in shown
    assert "morpheus_volume_size_bytes 2e+10" in shown
    assert "morpheus_volume_answers 1.0" in shown
    assert "morpheus_comfyui_queue 0.0" in shown


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


def test_a_container_is_one_worker_at_each_boot(site: Site) -> None:
    workers = set()
    for _ in range(2):
        with site.start("up") as up:
            up.wait_until_ready()
            workers.add(up.get("/status").json()["worker"])

    assert len(workers) == 1


def test_the_file_server_is_up_before_the_fill_ends_and_says_how_far_it_is(
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
        gate.open()
        up.wait_until_ready()


def test_sigterm_in_the_middle_of_a_fill_ends_it_in_time(site: Site, origin: Origin) -> None:
    site.models = three_models(origin)
    gate = Gate(100_000)
    origin.misbehave("/b.safetensors", gate, after=1)

    with site.start("up") as up:
        gate.wait_reached(20)
        wait_until(lambda: up.ping() == 204)
        assert up.stop() == 0


def test_a_misspelt_key_ends_with_65_naming_line_and_key(site: Site) -> None:
    site.models = "version: 1\nmodles: []\n"

    ended = site.run("up")

    assert ended.code == 65
    assert "line 2" in ended.err
    assert "modles" in ended.err


def test_an_origin_that_is_down_ends_with_69_naming_the_model(site: Site, origin: Origin) -> None:
    site.models = three_models(origin)
    origin.close()

    ended = site.run("up", "--retry-for", "0.2")

    assert ended.code == 69
    assert "checkpoints/a.safetensors" in ended.err
    assert "loras/b.safetensors" in ended.err
    assert "Traceback" not in ended.err


def test_where_several_models_fail_the_status_page_has_the_exit_code_to_come(
    site: Site, origin: Origin
) -> None:
    site.models = three_models(origin)
    site.environ = {"MORPHEUS_HOLD_S": "60"}
    origin.close()

    with site.start("up", "--retry-for", "0.2") as up:
        wait_until(lambda: up.ping() == 503, timeout_s=20)
        assert up.get("/status").json()["exit_code"] == 69
        assert up.stop() == 69

    assert up.log.count("ERROR: giving up in 60 s: ") == 2
    assert not [line for line in up.log.splitlines() if not line.startswith("20")]


def test_no_comfyui_ends_with_78_saying_where_it_looked(site: Site, tmp_path: Path) -> None:
    site.comfyui = tmp_path / "nothing-here"

    ended = site.run("up")

    assert ended.code == 78
    assert str(tmp_path / "nothing-here") in ended.err


def test_a_local_disk_that_can_not_be_written_ends_with_74_and_is_not_taken_for_the_volume(
    site: Site,
) -> None:
    (site.local / "comfyui").mkdir(parents=True)
    (site.local / "comfyui" / "input").write_text("in the way")

    ended = site.run("up")

    assert ended.code == 74
    error = ended.err.splitlines()[-1]
    assert f"{site.local}/comfyui/input can't be written" in error
    assert "set MORPHEUS_LOCAL_DIR" in error
    assert "volume" not in error.replace(str(site.root), "")


@pytest.mark.parametrize("which", ["fileserver_port", "comfyui_port"])
def test_a_taken_port_ends_at_once_with_78_naming_who_has_it(site: Site, which: str) -> None:
    with socket.create_server(("127.0.0.1", getattr(site, which))):
        ended = site.run("up")

    assert ended.code == 78
    assert str(getattr(site, which)) in ended.err
    assert f"process {os.getpid()} (" in ended.err


def test_a_comfyui_that_dies_ends_the_boot_with_69_and_its_last_lines(
    site: Site, tmp_path: Path
) -> None:
    site.comfyui = tmp_path / "broken"
    site.comfyui.mkdir()
    (site.comfyui / "main.py").write_text("print('no CUDA today')\nraise SystemExit(3)\n")

    ended = site.run("up")

    assert ended.code == 69
    assert "exit code 3" in ended.err
    assert ended.err.count("comfyui    no CUDA today") == 3


def test_a_boot_that_gives_up_stays_reachable_and_says_why_until_it_is_told_to_end(
    site: Site,
) -> None:
    site.models = "version: 1\nmodles: []\n"
    site.environ = {"MORPHEUS_HOLD_S": "60"}

    with site.start("up") as up:
        wait_until(lambda: up.ping() == 503, timeout_s=20)
        status = up.get("/status").json()
        assert "modles" in status["error"]
        assert status["exit_code"] == 65
        assert up.stop() == 65


@pytest.mark.parametrize(
    ("variables", "arguments", "code", "named"),
    [
        ({"COMFYUI_ARGS": "--port 1"}, (), 64, "COMFYUI_ARGS"),
        ({"MORPHEUS_JOB_TTL_HOURS": "0", "COMFYUI_ARGS": "'"}, (), 64, "COMFYUI_ARGS"),
        ({"PORT": "{comfyui_port}"}, (), 78, "PORT"),
        ({"MORPHEUS_TOKEN": "{{{{ RUNPOD_SECRET_X }}}}"}, (), 64, "MORPHEUS_TOKEN"),
        ({}, ("--nonsense",), 64, "command line"),
    ],
)
def test_a_wrong_variable_or_argument_is_held_for_reading_as_any_other_error(
    site: Site, variables: dict[str, str], arguments: tuple[str, ...], code: int, named: str
) -> None:
    site.environ = {
        "MORPHEUS_HOLD_S": "60",
        **{k: v.format(comfyui_port=site.comfyui_port) for k, v in variables.items()},
    }

    with site.start("up", *arguments) as up:
        wait_until(lambda: up.ping() == 503, timeout_s=20)
        status = up.get("/status").json()
        assert status["error"].startswith(f"{named}: ")
        assert status["exit_code"] == code
        assert up.stop() == code


def test_a_wrong_variable_does_not_hold_what_does_not_stay(site: Site) -> None:
    site.environ = {"MORPHEUS_HOLD_S": "60", "COMFYUI_ARGS": "--port 1"}

    assert site.run("plan").code == 64


def test_files_serves_the_volume_without_a_comfyui(site: Site, tmp_path: Path) -> None:
    site.comfyui = tmp_path / "nothing-here"

    with site.start("files") as files:
        files.wait_until_ready()
        base = f"http://127.0.0.1:{site.fileserver_port}"
        sent = requests.post(f"{base}/upload", files={"file": ("x.png", b"data")}, timeout=10)
        assert sent.status_code == 200
        assert Path(sent.json()["pod_path"]).read_bytes() == b"data"
        assert files.stop() == 0


def test_with_a_token_both_ports_ask_for_it_and_no_process_or_log_shows_it(site: Site) -> None:
    token = "a-token-of-some-length"
    site.environ = {"MORPHEUS_TOKEN": token}

    with site.start("up") as up:
        up.wait_until_ready()
        for port in (site.comfyui_port, site.fileserver_port):
            base = f"http://127.0.0.1:{port}"
            path = "/system_stats" if port == site.comfyui_port else "/status"
            bearer = {"Authorization": f"Bearer {token}"}
            assert requests.get(base + path, timeout=10).status_code == 401
            assert requests.get(base + path, headers=bearer, timeout=10).status_code == 200
        commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
        assert token not in commands.stdout
        assert token not in up.log


def test_a_proxy_for_the_internet_does_not_get_what_is_asked_of_this_container(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        site.environ = {"MORPHEUS_TOKEN": "x" * 20, "http_proxy": url, "HTTP_PROXY": url}
        with site.start("up") as up:
            up.wait_until_ready()
            assert up.stop() == 0
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_with_a_token_a_comfyui_without_our_node_is_refused(site: Site) -> None:
    site.environ = {"MORPHEUS_TOKEN": "x" * 20, "COMFYUI_ARGS": "--disable-all-custom-nodes"}

    ended = site.run("up")

    assert ended.code == 78
    assert "--disable-all-custom-nodes" in ended.err


def test_a_prompt_without_a_job_saves_into_the_workers_own_folder(site: Site) -> None:
    graph = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    with site.start("up") as up:
        up.wait_until_ready()
        sent = requests.post(
            f"http://127.0.0.1:{site.comfyui_port}/prompt", json={"prompt": graph}, timeout=10
        )
        assert sent.status_code == 200, sent.text
        worker = up.get("/status").json()["worker"]
        wait_until((site.volume / "jobs" / worker / "output" / "x_00001_.png").exists)


def test_on_runpod_a_volume_on_the_containers_own_disk_is_refused(site: Site) -> None:
    site.environ = {"RUNPOD_POD_ID": "pod1", "MORPHEUS_HOLD_S": "0"}

    ended = site.run("fill")

    assert ended.code == 78
    assert "vanish" in ended.err


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


def test_an_error_of_comfyuis_is_one_in_our_log(site: Site, tmp_path: Path) -> None:
    site.comfyui = tmp_path / "failing"
    site.comfyui.mkdir()
    (site.comfyui / "main.py").write_text(
        "print('\\x1b[31m[ERROR] no database\\x1b[0m')\nprint('usage')\nraise SystemExit(3)\n"
    )

    ended = site.run("up", "--log-format", "json")

    said = [json.loads(line) for line in ended.err.splitlines()]
    levels = {entry["message"]: entry["level"] for entry in said if entry["source"] == "comfyui"}
    assert levels == {"no database": "error", "usage": "info"}


def test_a_json_log_is_an_object_a_line(site: Site) -> None:
    site.models = "version: 1\nmodles: []\n"

    ended = site.run("up", "--log-format", "json")

    entries = [json.loads(line) for line in ended.err.splitlines()]
    assert entries[-1]["level"] == "error"


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({"MORPHEUS_LOG": "json"}, ("--lock-timeout", "x")),
        ({}, ("--nonsense", "--log-format=json")),
        ({"MORPHEUS_LOG": "json", "COMFYUI_ARGS": "--port 1"}, ()),
    ],
)
def test_what_is_wrong_on_the_command_line_is_told_in_json_too(
    site: Site, variables: dict[str, str], arguments: tuple[str, ...]
) -> None:
    site.environ = variables

    ended = site.run("up", *arguments)

    assert ended.code == 64
    [line] = ended.err.splitlines()
    assert json.loads(line)["level"] == "error"


def pid_of(up: Program, service: str) -> int:
    services = up.get("/status").json()["services"]
    return int(next(s["pid"] for s in services if s["name"] == service))


def test_a_killed_comfyui_comes_back_ready_and_the_file_server_never_notices(
    site: Site, origin: Origin
) -> None:
    site.models = three_models(origin)
    with site.start("up") as up:
        up.wait_until_ready()
        comfyui, files = pid_of(up, "comfyui"), pid_of(up, "fileserver")

        os.kill(comfyui, signal.SIGKILL)

        wait_until(lambda: "ready again" in up.log, timeout_s=30)
        assert pid_of(up, "comfyui") != comfyui
        assert pid_of(up, "fileserver") == files
        assert up.ping() == 200


def test_a_killed_file_server_comes_back_and_comfyui_never_notices(site: Site) -> None:
    with site.start("up") as up:
        up.wait_until_ready()
        comfyui, files = pid_of(up, "comfyui"), pid_of(up, "fileserver")

        os.kill(files, signal.SIGKILL)

        wait_until(lambda: up.ping() == 200 and pid_of(up, "fileserver") != files, timeout_s=30)
        assert pid_of(up, "comfyui") == comfyui


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


@pytest.mark.parametrize("command", ["up", "files"])
def test_a_second_boot_is_refused_with_78_and_changes_nothing_for_the_first(
    site: Site, command: str
) -> None:
    with site.start("up") as up:
        up.wait_until_ready()
        before = up.get("/status").json()

        second = site.run(command)

        assert second.code == 78
        assert f"process {before['pid']} boots and serves with {site.local} already" in second.err
        assert up.ping() == 200
        assert up.get("/status").json() == before
        assert "ready" in site.run("status").out
        assert up.stop() == 0


@pytest.mark.parametrize("command", ["up", "files"])
def test_a_local_folder_that_can_not_be_made_ends_with_74_and_names_its_variable(
    site: Site, command: str
) -> None:
    site.local.write_text("in the way")

    ended = site.run(command)

    assert ended.code == 74
    [error] = ended.err.splitlines()
    assert f"{site.local} can't be written (File exists)" in error
    assert "set MORPHEUS_LOCAL_DIR" in error


def test_a_local_folder_that_is_full_ends_with_74_and_names_its_variable(site: Site) -> None:
    with mounted(site.local, "size=1m"):
        fill_up(site.local)
        ended = site.run("up")

    assert ended.code == 74
    assert "set MORPHEUS_LOCAL_DIR" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
