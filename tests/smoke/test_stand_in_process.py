"""The stand-in starts and ends as ComfyUI does."""

import signal
import socket
import subprocess
from pathlib import Path

import pytest
import requests

from morpheus_boot.smoke.inner import free_ports
from tests.smoke.running import command, prepare, running


def _ended(folder: Path, port: int, *more: str) -> tuple[int, str]:
    ended = subprocess.run(
        command(folder, port, *more), capture_output=True, text=True, timeout=20, check=False
    )
    return ended.returncode, ended.stderr


def test_an_unknown_option_ends_it_with_2(tmp_path: Path) -> None:
    prepare(tmp_path)

    code, errors = _ended(tmp_path, 1, "--warp-drive")

    assert code == 2
    assert "unrecognized arguments: --warp-drive" in errors


def test_a_user_directory_that_does_not_exist_ends_it_with_2(tmp_path: Path) -> None:
    prepare(tmp_path)

    code, errors = _ended(tmp_path, 1, "--user-directory", str(tmp_path / "gone"))

    assert code == 2
    assert "does not exist" in errors


def test_a_taken_port_ends_it_with_1(tmp_path: Path) -> None:
    prepare(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]

        code, errors = _ended(tmp_path, port)

    assert code == 1
    assert f"Port {port} is already in use" in errors


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, -15), (signal.SIGINT, 0)])
def test_a_signal_ends_it_as_it_ends_comfyui(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    prepare(tmp_path)
    with running(tmp_path) as stand_in:
        stand_in.process.send_signal(sent)

        assert stand_in.process.wait(10) == code


def test_its_temp_directory_is_emptied_at_its_start(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "temp").mkdir()
    (tmp_path / "temp" / "old.png").touch()

    with running(tmp_path):
        assert list((tmp_path / "temp").iterdir()) == []


_NODE = """
import folder_paths
from aiohttp import web
from server import PromptServer

@web.middleware
async def guarded(request, handler):
    if request.query.get("token") != "sesame":
        return web.Response(status=401)
    return await handler(request)

PromptServer.instance.app.middlewares.insert(0, guarded)

class Shout:
    RETURN_TYPES = ("STRING",)
    FUNCTION = "shout"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {})}}
    def shout(self, text):
        return (text.upper(),)

NODE_CLASS_MAPPINGS = {"Shout": Shout, "SaveImage": Shout}
"""


def test_a_custom_node_from_an_extra_paths_file_is_imported_before_it_listens(
    tmp_path: Path,
) -> None:
    prepare(tmp_path)
    node = tmp_path / "nodes" / "ours"
    node.mkdir(parents=True)
    (node / "__init__.py").write_text(_NODE)
    (tmp_path / "farm" / "ipadapter").mkdir(parents=True)
    (tmp_path / "farm" / "ipadapter" / "any.suffix").touch()
    config = tmp_path / "paths.yaml"
    config.write_text("ours:\n  base_path: .\n  custom_nodes: nodes\n  ipadapter: farm/ipadapter\n")

    with running(tmp_path, "--extra-model-paths-config", str(config)) as stand_in:
        refused = requests.get(f"{stand_in.url}/system_stats", timeout=10)
        known = stand_in.get("/object_info?token=sesame")

        assert refused.status_code == 401
        assert known["Shout"]["output"] == ["STRING"]
        assert known["SaveImage"]["output_node"] is True, (
            "a custom node never takes a core node's name"
        )
        assert stand_in.get("/models/ipadapter?token=sesame") == ["any.suffix"]


def test_a_custom_node_that_fails_is_left_out(tmp_path: Path) -> None:
    comfyui = prepare(tmp_path)
    (comfyui / "custom_nodes" / "broken.py").write_text("raise RuntimeError('no')")

    with running(tmp_path) as stand_in:
        assert "SaveImage" in stand_in.get("/object_info")


def test_a_custom_node_can_keep_it_from_listening(tmp_path: Path) -> None:
    comfyui = prepare(tmp_path)
    (comfyui / "custom_nodes" / "fatal.py").write_text("import os; os._exit(78)")
    [port] = free_ports(1)

    assert _ended(tmp_path, port)[0] == 78
