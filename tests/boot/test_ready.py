"""Ready means ready: a ComfyUI that serves strangers, or does not list a model, ends the boot and says why."""

import socket
from pathlib import Path

import pytest

from tests.boot.program import Site
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


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


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
    (tmp_path / "a").write_bytes(b"a model of a kind that ComfyUI does not load")
    url = (tmp_path / "a").as_uri()
    site.models = f"version: 1\nmodels:\n  - {{path: loras/a.txt, url: '{url}'}}\n"
    site.environ = {"MORPHEUS_HOLD_S": "60"}

    with site.start("up") as up:
        wait_until(lambda: up.ping() == 503, timeout_s=30)
        wanted = "loras/a.txt: loras does not list it; is .txt an ending that it loads?"
        assert wanted in up.get("/status").json()["error"]
        assert up.stop() == 78
