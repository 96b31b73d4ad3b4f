"""Ready means ready: a ComfyUI that serves strangers, or does not list a model, ends the boot and says why."""

import shutil
import socket
from pathlib import Path

import pytest

from tests.boot.program import Site
from tests.testbed.content import read_all, safetensors
from tests.wait import wait_until

# A ComfyUI that runs no custom node at all.
UNGUARDED = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_a_comfyui_that_answers_without_the_token_is_stopped_with_78(site: Site) -> None:
    (site.comfyui / "main.py").write_text(UNGUARDED)
    site.environ = {"MORPHEUS_TOKEN": "x" * 20, "MORPHEUS_HOLD_S": "60"}

    with site.start("up") as up:
        wait_until(lambda: up.ping() == 503, timeout_s=30)
        wait_until(lambda: nobody_listens(site.comfyui_port))
        assert up.stop() == 78

    assert "ComfyUI: it answers without the token" in up.log


def nobody_listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_model_that_comfyui_does_not_list_ends_the_boot_and_is_named_on_the_status_page(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(read_all(safetensors(1000)))
    url = (tmp_path / "a").as_uri()
    site.models = f"version: 1\nmodels:\n  - {{path: configs/a.safetensors, url: '{url}'}}\n"
    site.environ = {"MORPHEUS_HOLD_S": "60"}

    with site.start("up") as up:
        wait_until(lambda: up.ping() == 503, timeout_s=30)
        wanted = "configs/a.safetensors: configs does not list it; is .safetensors an ending"
        assert wanted in up.get("/status").json()["error"]
        assert up.stop() == 78


@pytest.fixture
def mortal(site: Site, tmp_path: Path) -> Site:
    """A container with one model, whose ComfyUI is mortal.py."""
    (tmp_path / "a").write_bytes(read_all(safetensors(1000)))
    url = (tmp_path / "a").as_uri()
    site.models = f"version: 1\nmodels:\n  - {{path: loras/a.safetensors, url: '{url}'}}\n"
    shutil.copy(Path(__file__).parent / "mortal.py", site.comfyui / "main.py")
    site.environ = {"MORPHEUS_TOKEN": "x" * 20}
    return site


def test_a_comfyui_that_leaves_a_request_unanswered_is_asked_again(mortal: Site) -> None:
    cut = "--cut stranger,/internal/folder_paths,/models/loras"
    mortal.environ = {**mortal.environ, "COMFYUI_ARGS": cut}

    with mortal.start("up") as up:
        up.wait_until_ready()
        assert up.stop() == 0

    assert "WARNING" not in up.log


@pytest.mark.parametrize(
    "how", ["--die stranger", "--die /internal/folder_paths", "--die-after /models/loras"]
)
def test_a_comfyui_that_dies_while_it_is_looked_at_is_not_ready_before_it_is_back(
    mortal: Site, how: str
) -> None:
    mortal.environ = {**mortal.environ, "COMFYUI_ARGS": how}

    with mortal.start("up") as up:
        wait_until(lambda: "at the gate" in up.log)
        assert up.ping() == 204
        (mortal.comfyui / "gate").touch()
        up.wait_until_ready()
        assert up.stop() == 0

    assert "WARNING" not in up.log
