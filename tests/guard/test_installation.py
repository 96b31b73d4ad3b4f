"""Where our node can't stand in front, ComfyUI doesn't come to listen."""

import ast
import socket
from pathlib import Path

import pytest
import requests

from morpheus_boot.comfyui.guard.settings import Settings, read_settings
from tests.guard.served import (
    NODE,
    START_LIMIT_S,
    Served,
    prepare,
    serving,
    started,
    variables,
)

DIGEST = "ab" * 32
TOLD = {
    "MORPHEUS_NODE_JOBS": "/v/jobs/",
    "MORPHEUS_NODE_WORKER": "pod-1",
    "MORPHEUS_NODE_MOUNTS": "/workspace:/v",
    "MORPHEUS_NODE_TOKEN_SHA256": DIGEST,
}


def test_what_the_boot_tells_is_read() -> None:
    told = Settings("/v/jobs", "pod-1", ("/workspace", "/v"), bytes.fromhex(DIGEST))

    assert read_settings(TOLD) == told
    open_to_all = {k: v for k, v in TOLD.items() if "MOUNTS" not in k and "TOKEN" not in k}
    assert read_settings(open_to_all) == Settings("/v/jobs", "pod-1", (), None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JOBS", ""),
        ("JOBS", "jobs"),
        ("WORKER", ""),
        ("WORKER", "a/b"),
        ("WORKER", "checkpoints"),
        ("TOKEN_SHA256", "token"),
        ("TOKEN_SHA256", "ab" * 31),
    ],
)
def test_what_makes_no_sense_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"MORPHEUS_NODE_{name}"):
        read_settings({**TOLD, f"MORPHEUS_NODE_{name}": value})


@pytest.mark.parametrize("module", sorted(NODE.glob("*.py")), ids=lambda module: module.name)
def test_the_oldest_python_of_comfyui_can_read_it(module: Path) -> None:
    ast.parse(module.read_text(), feature_version=(3, 9))


def test_as_a_part_of_the_program_it_does_nothing() -> None:
    import morpheus_boot.comfyui.guard

    assert morpheus_boot.comfyui.guard.NODE_CLASS_MAPPINGS == {}


def ended(comfyui: Served) -> tuple[int, list[str]]:
    """The exit code and the lines of ours."""
    code = comfyui.process.wait(START_LIMIT_S)
    return code, [line for line in comfyui.log.splitlines() if "morpheus_boot_node:" in line]


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("MORPHEUS_NODE_WORKER", "", "MORPHEUS_NODE_WORKER is not set"),
        ("MORPHEUS_NODE_JOBS", "/elsewhere/jobs", "output directory is"),
    ],
)
def test_told_wrongly_it_ends_comfyui_with_78_and_one_line(
    tmp_path: Path, name: str, value: str, cause: str
) -> None:
    prepare(tmp_path)

    with started(tmp_path, {**variables(tmp_path), name: value}) as comfyui:
        code, lines = ended(comfyui)

        assert code == 78
        assert len(lines) == 1
        assert cause in lines[0]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", comfyui.port))


@pytest.mark.parametrize("damage", ["missing", "syntax"])
def test_a_damaged_copy_ends_comfyui_with_78(tmp_path: Path, damage: str) -> None:
    prepare(tmp_path)
    module = tmp_path / "local" / "nodes" / "morpheus_boot_node" / "middleware.py"
    if damage == "missing":
        module.unlink()
    else:
        module.write_text("def (")

    with started(tmp_path, variables(tmp_path)) as comfyui:
        code, lines = ended(comfyui)

    assert code == 78
    assert len(lines) == 1


def test_a_node_that_puts_itself_first_does_not_stand_before_the_token(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "first.py").write_text(FIRST)
    with (tmp_path / "paths.yaml").open("a") as paths:
        paths.write(f"others:\n  custom_nodes: {tmp_path / 'later'}\n")

    with serving(tmp_path, variables(tmp_path)) as comfyui:
        assert requests.get(f"{comfyui.url}/system_stats", timeout=10).status_code == 401
        assert comfyui.get("/system_stats").headers["x-first"] == "yes"


FIRST = """
from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {}


@web.middleware
async def first(request, handler):
    if "x-morpheus-token" not in request.headers:
        return web.Response(text="let in")
    response = await handler(request)
    response.headers["x-first"] = "yes"
    return response


PromptServer.instance.app.middlewares.insert(0, first)
"""
