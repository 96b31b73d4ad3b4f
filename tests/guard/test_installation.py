"""Where our node can't stand in front, ComfyUI doesn't come to listen; nor before other nodes have their packages."""

import ast
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.guard.served import NODE, START_LIMIT_S, Served, prepare, serving, started, variables
from tests.wait import wait_until


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
        ("MORPHEUS_NODE_TOKEN_SHA256", "the token", "hexadecimal"),
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


@pytest.mark.parametrize("damage", ["", "def ("])
def test_a_damaged_copy_ends_comfyui_with_78(tmp_path: Path, damage: str) -> None:
    prepare(tmp_path)
    module = tmp_path / "local" / "nodes" / "morpheus_boot_node" / "middleware.py"
    module.write_text(damage)

    with started(tmp_path, variables(tmp_path)) as comfyui:
        code, lines = ended(comfyui)

    assert (code, len(lines)) == (78, 1)


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


EARLIER = """
NODE_CLASS_MAPPINGS = {}
try:
    import late_package
except ImportError:
    print("not yet", flush=True)
"""
FURTHER = """
import late_package

NODE_CLASS_MAPPINGS = {}
print("imported", late_package.VALUE, late_package.second_place.VALUE, flush=True)
"""


def test_further_nodes_are_imported_once_their_packages_are_there_and_not_before(
    tmp_path: Path,
) -> None:
    prepare(tmp_path)
    paths = [(tmp_path / "paths.yaml").read_text()]
    for name, code in (("earlier", EARLIER), ("further", FURTHER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.py").write_text(code)
        paths.append(f"{name}:\n  custom_nodes: {tmp_path / name}\n")
    ours, earlier, further = paths
    (tmp_path / "paths.yaml").write_text(earlier + ours + further)
    packages, gate = tmp_path / "site" / "packages", tmp_path / "gate"
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(
        f"import sys\nsys.path.append({str(packages)!r})\n"
    )
    told = {
        **variables(tmp_path),
        "PYTHONPATH": str(tmp_path / "first"),
        "MORPHEUS_NODE_GATE": str(gate),
        "MORPHEUS_NODE_PACKAGES": str(packages),
    }

    with started(tmp_path, told) as comfyui:
        wait_until(lambda: "not yet" in comfyui.log, START_LIMIT_S)
        assert not listens(comfyui.url)
        (packages / "more").mkdir(parents=True)
        (packages / "late_package.py").write_text("import second_place\nVALUE = 1\n")
        (packages / "more" / "second_place.py").write_text("VALUE = 2\n")
        (packages / "more.pth").write_text("more\n")
        gate.touch()
        wait_until(lambda: listens(comfyui.url), START_LIMIT_S)
        assert "imported 1 2" in comfyui.log


def test_a_comfyui_whose_boot_is_gone_does_not_wait_for_ever(tmp_path: Path) -> None:
    waiting = f"""
import os, sys
from morpheus_boot.comfyui.guard.installation import wait_for_packages
boot = os.getppid()
os.write(int(sys.argv[1]), b"!")
try:
    wait_for_packages({{"MORPHEUS_NODE_GATE": {str(tmp_path / "gate")!r}}}, boot)
except RuntimeError as error:
    print(error)
"""
    boot = f"""
import os, subprocess, sys
began, begin = os.pipe()
subprocess.Popen([sys.executable, "-c", {waiting!r}, str(begin)], pass_fds=[begin])
os.read(began, 1)
os._exit(0)
"""
    said = subprocess.run(
        [sys.executable, "-c", boot], stdout=subprocess.PIPE, text=True, check=True, timeout=20
    ).stdout

    assert said == "morpheus boot has ended\n"


def listens(url: str) -> bool:
    try:
        requests.get(url, timeout=10)
    except requests.ConnectionError:
        return False
    return True
