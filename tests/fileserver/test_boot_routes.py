import socket
import subprocess
from collections.abc import Callable

import pytest

from morpheus_boot.config.redact import Redactor
from morpheus_boot.report.state import (
    BootState,
    ModelStage,
    ModelState,
    Readiness,
    ServiceStage,
    ServiceState,
    StateBoard,
    VolumeState,
    state_file,
)
from tests.fileserver.serving import (
    COMMAND,
    REPOSITORY,
    FileServer,
    environment,
    form,
    free_port,
    upload_head,
)


def board(server: FileServer) -> StateBoard:
    state = BootState(
        version="1.2.3", worker="w", endpoint="e", pid=1, started_at="2026-11-24T00:00:00Z"
    )
    return StateBoard(state_file(server.local_dir), state, Redactor())


def test_health_is_ok_before_there_is_a_boot(shared: FileServer) -> None:
    answer = shared.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_ping_follows_the_boots_readiness(shared: FileServer) -> None:
    state_file(shared.local_dir).unlink(missing_ok=True)
    assert shared.get("/ping").status_code == 204
    boot = board(shared)
    assert shared.get("/ping").status_code == 204
    boot.set_readiness(Readiness.READY)
    assert shared.get("/ping").status_code == 200
    boot.set_readiness(Readiness.FAILED, error="models.yaml: wrong", exit_code=65)
    assert shared.get("/ping").status_code == 503
    assert shared.get("/status").json()["error"] == "models.yaml: wrong"


def test_status_shows_phases_models_services_and_volume(shared: FileServer) -> None:
    boot = board(shared)
    with boot.phase("plan"):
        pass
    boot.put_model(ModelState("loras/x", ModelStage.FETCHING, 5, 10))
    boot.put_service(ServiceState("comfyui", ServiceStage.RUNNING, 8188, 42))
    boot.set_volume(VolumeState("/workspace", 20_000_000_000))
    shown = shared.get("/status").json()
    assert shown["version"] == "1.2.3"
    assert shown["phases"][0]["name"] == "plan"
    assert shown["phases"][0]["seconds"] >= 0
    assert shown["models"][0] == {
        "path": "loras/x",
        "stage": "fetching",
        "done_bytes": 5,
        "size_bytes": 10,
        "rate_bytes_per_s": 0.0,
        "left_s": None,
        "retries": 0,
        "required": True,
        "detail": "",
    }
    assert shown["services"][0]["stage"] == "running"
    assert shown["volume"]["size_bytes"] == 20_000_000_000


@pytest.mark.parametrize("content", [None, "{", "[]", '{"version": "0"}'])
def test_a_state_document_that_says_nothing_is_as_none(
    shared: FileServer, content: str | None
) -> None:
    state_file(shared.local_dir).unlink(missing_ok=True)
    if content is not None:
        state_file(shared.local_dir).write_text(content)
    assert shared.get("/ping").status_code == 204
    assert shared.get("/status").json() == {"readiness": "starting"}


@pytest.mark.parametrize("path", ["/nothing", "/upload/", "/docs", "/openapi.json", "/jobs/x"])
def test_unknown_routes_are_404_with_a_detail(shared: FileServer, path: str) -> None:
    answer = shared.get(path)
    assert answer.status_code == 404
    assert path.rpartition("/")[2] in answer.json()["detail"]


def test_a_wrong_method_is_405(shared: FileServer) -> None:
    answer = shared.get("/upload")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert "Allow" in answer.json()["detail"]
    assert shared.post("/download/a/b").status_code == 405


def test_without_a_volume_only_the_boots_routes_answer(start: Callable[..., FileServer]) -> None:
    server = start(volume="")
    for path in ("/health", "/status", "/", "/metrics"):
        assert server.get(path).status_code == 200
    assert server.get("/ping").status_code == 204
    answers = (
        server.upload(b"x"),
        server.get("/download/a/b"),
        server.get("/download/a"),
        server.post("/cleanup/a"),
    )
    for answer in answers:
        assert answer.status_code == 503
        assert "there is none" in answer.json()["detail"]


def test_it_also_listens_on_port_and_port_health(start: Callable[..., FileServer]) -> None:
    extra, health = free_port(), free_port()
    server = start(env={"PORT": str(extra), "PORT_HEALTH": str(health)})
    for port in (extra, health):
        server.url = f"http://127.0.0.1:{port}"
        assert server.get("/ping").status_code == 204
    assert "WARNING" not in server.log


def test_an_extra_port_that_is_taken_is_one_warning(start: Callable[..., FileServer]) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        server = start(env={"PORT": port, "PORT_HEALTH": port, "COMFYUI_PORT": "9999"})
        assert server.get("/health").status_code == 200
        assert server.log.count("WARNING") == 1
        assert port in server.log


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("FILESERVER_PORT", "taken", 78),
        ("FILESERVER_PORT", "70000", 64),
        ("MORPHEUS_MAX_CONNECTIONS", "many", 64),
        ("MORPHEUS_JOB_TTL_HOURS", "0", 64),
        ("MORPHEUS_LOCAL_DIR", "", 64),
    ],
)
def test_what_it_can_not_start_with_ends_it_and_is_named(
    shared: FileServer, name: str, value: str, code: int
) -> None:
    given = {
        "FILESERVER_PORT": str(free_port()),
        "MORPHEUS_LOCAL_DIR": str(shared.local_dir),
        name: str(shared.port) if value == "taken" else value,
    }
    ended = subprocess.run(
        COMMAND,
        env=environment(**given),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == code
    assert ended.stderr.count("\n") == 1
    assert name in ended.stderr


def test_it_ends_in_time_and_with_0_though_a_client_stays(start: Callable[..., FileServer]) -> None:
    server = start()
    body, headers = form(b"half of it")
    with server.connect() as client:
        client.sendall(upload_head(len(body), headers) + body[:-3])
        assert server.stop() == 0
    assert "ERROR" not in server.log
