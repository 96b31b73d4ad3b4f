import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

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
from tests.fileserver.serving import FileServer


def metrics(server: FileServer) -> dict[str, float]:
    lines = server.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_requests_are_counted_by_route_and_status_and_bytes_by_direction(
    start: Callable[..., FileServer],
) -> None:
    server = start()
    server.output("j", "a.png", b"12345")
    server.upload(b"123", worker_job_id="j")
    server.upload(b"123", worker_job_id="..")
    server.get("/download/j/a.png")
    server.get("/download/j/b.png")
    server.session.head(f"{server.url}/download/j/a.png", timeout=5)
    archive = server.get("/download/j").content
    for path in ("/nothing", "/nothing/else", "/status"):
        server.get(path)
    counted = metrics(server)
    expected = {
        ("GET", "/health", 200): None,
        ("POST", "/upload", 200): 1,
        ("POST", "/upload", 422): 1,
        ("GET", "/download/{job}/{path}", 200): 1,
        ("HEAD", "/download/{job}/{path}", 200): 1,
        ("GET", "/download/{job}/{path}", 404): 1,
        ("GET", "/download/{job}", 200): 1,
        ("GET", "none", 404): 2,
        ("GET", "/status", 200): 1,
    }
    for (method, route, status), count in expected.items():
        name = f'morpheus_requests_total{{method="{method}",route="{route}",status="{status}"}}'
        assert counted[name] == count or count is None
    assert counted["morpheus_uploaded_bytes_total"] == 3
    assert counted["morpheus_downloaded_bytes_total"] == 5 + len(archive)
    assert counted["morpheus_jobs"] == 1
    assert counted["morpheus_volume_answers"] == 1
    assert "morpheus_comfyui_queue" not in counted


def test_the_boots_state_is_there_as_gauges(shared: FileServer) -> None:
    state = BootState(version="1", worker="w", endpoint="e", pid=1, started_at="now")
    boot = StateBoard(state_file(shared.local_dir), state, Redactor())
    with boot.phase("fill"):
        pass
    boot.put_model(ModelState("a", ModelStage.PRESENT, 10, 10))
    boot.put_model(ModelState("b", ModelStage.FETCHING, 5, 20))
    boot.put_model(ModelState("c", ModelStage.MISSING))
    boot.put_service(ServiceState("comfyui", ServiceStage.RUNNING, 8188))
    boot.put_service(ServiceState("queue", ServiceStage.ENDED, None))
    boot.set_volume(VolumeState("/workspace", 1000))
    boot.set_readiness(Readiness.READY)
    shown = metrics(shared)
    assert shown['morpheus_boot_readiness{state="ready"}'] == 1
    assert shown['morpheus_boot_readiness{state="starting"}'] == 0
    assert shown['morpheus_boot_phase_seconds{phase="fill"}'] >= 0
    assert shown['morpheus_models{stage="fetching"}'] == 1
    assert shown['morpheus_models{stage="failed"}'] == 0
    assert shown["morpheus_models_done_bytes"] == 15
    assert shown["morpheus_models_size_bytes"] == 30
    assert shown['morpheus_service_running{service="comfyui"}'] == 1
    assert shown['morpheus_service_running{service="queue"}'] == 0
    assert shown["morpheus_volume_size_bytes"] == 1000


def test_a_volume_whose_jobs_can_not_be_read_costs_their_number_alone(
    start: Callable[..., FileServer],
) -> None:
    server = start()
    (server.volume / "jobs").symlink_to(server.root)
    shown = metrics(server)
    assert shown["morpheus_volume_answers"] == 0
    assert "morpheus_jobs" not in shown
    assert shown['morpheus_requests_total{method="GET",route="/health",status="200"}'] >= 1


@pytest.fixture
def comfyui() -> Iterator[tuple[int, list[str | None]]]:
    """What answers for ComfyUI's queue as it does, and the tokens that it was sent."""
    tokens: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["X-Morpheus-Token"])
            body = json.dumps({"exec_info": {"queue_remaining": 7}}).encode()
            self.send_response(200 if self.path == "/prompt" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], tokens
        server.shutdown()


def test_comfyuis_queue_is_asked_for_with_the_token(
    start: Callable[..., FileServer], comfyui: tuple[int, list[str | None]]
) -> None:
    port, tokens = comfyui
    server = start(
        env={"COMFYUI_PORT": str(port), "MORPHEUS_TOKEN": "t0ken", "MORPHEUS_WORKER": "w"}
    )
    answer = server.get("/metrics", headers={"X-Morpheus-Token": "t0ken"})
    assert "morpheus_comfyui_queue 7.0" in answer.text
    assert set(tokens) == {"t0ken"}  # the runner listens to it, too


def test_a_comfyui_that_says_nothing_of_its_queue_costs_that_number_alone(
    start: Callable[..., FileServer],
) -> None:
    answers = [b"", b"[]", b'{"exec_info": {}}']
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=say, args=(listener, answers), daemon=True).start()
        port = str(listener.getsockname()[1])
        server = start(env={"COMFYUI_PORT": port, "MORPHEUS_WORKER": "w"})
        while answers:
            shown = metrics(server)
            assert "morpheus_comfyui_queue" not in shown
            assert shown["morpheus_volume_answers"] == 1
            answers.pop(0)
        listener.shutdown(socket.SHUT_RDWR)


def say(listener: socket.socket, bodies: list[bytes]) -> None:
    """Answers every request with the first of ``bodies``, and with nothing where that is empty."""
    with contextlib.suppress(OSError), ExitStack() as kept:
        while True:
            client = kept.enter_context(listener.accept()[0])
            client.recv(4096)
            if body := b"".join(bodies[:1]):
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                client.sendall(body)
