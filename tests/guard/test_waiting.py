"""ComfyUI waits for the packages of the other nodes in our node, and for nobody else."""

import subprocess
import sys
from pathlib import Path

import requests

from tests.guard.served import NODE, START_LIMIT_S, prepare, started, variables
from tests.wait import wait_until

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
sys.path.insert(0, {str(NODE)!r})
from waiting import wait_for_packages
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
