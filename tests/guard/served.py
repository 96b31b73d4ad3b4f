"""A ComfyUI that our node guards, in a process of its own: the real one where COMFYUI_DIR is set, else the stand-in."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import requests

import morpheus_boot
from morpheus_boot.comfyui.find import ComfyUI, find_comfyui
from morpheus_boot.smoke.inner import free_ports
from morpheus_boot.smoke.samples import gradient
from morpheus_boot.volume.layout import Layout
from tests.wait import wait_until

NODE: Final = Path(morpheus_boot.__file__).parent / "comfyui" / "guard"
STAND_IN: Final = Path(morpheus_boot.__file__).parent / "smoke" / "stand-in"
TOKEN: Final = "s3cret +/&"
WORKER: Final = "pod-1"
SECRET: Final = b"what lies outside of jobs/"
PICTURE: Final = gradient(8, 4)

# Read here, since the tests' environment is bare by the time they run.
_GIVEN: Final = {name: os.environ.get(name) for name in ("COMFYUI_DIR", "COMFYUI_PYTHON")}
REAL: Final = _GIVEN["COMFYUI_DIR"] is not None
START_LIMIT_S: Final = 240.0 if REAL else 20.0

real_only = pytest.mark.skipif(not REAL, reason="the stand-in has no such node or route")

Graph = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """One ComfyUI, its volume and its log."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def volume(self) -> Layout:
        return Layout(self.folder / "volume")

    @property
    def jobs(self) -> Path:
        return self.volume.jobs

    @property
    def local(self) -> Path:
        return self.folder / "local"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request with the token."""
        headers = {"X-Morpheus-Token": TOKEN.encode(), **more.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=60, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.request("GET", path, **more)

    def upload(self, route: str, content: bytes, name: str, **fields: str) -> requests.Response:
        return self.request("POST", route, files={"image": (name, content)}, data=fields)

    def prompt(self, graph: Graph, **more: Any) -> requests.Response:
        return self.request("POST", "/prompt", json={"prompt": graph}, **more)

    def run(self, graph: Graph) -> dict[str, Any]:
        """Runs a prompt that is in order to its end; its entry in the history."""
        answer = self.prompt(graph)
        assert answer.status_code == 200, answer.text
        return self.finished(answer.json()["prompt_id"])

    def finished(self, prompt_id: str) -> dict[str, Any]:
        """Waits until a prompt has ended; its entry in the history."""
        wait_until(lambda: bool(self.get(f"/history/{prompt_id}").json()), 60)
        entry: dict[str, Any] = self.get(f"/history/{prompt_id}").json()[prompt_id]
        return entry

    def saved(self, graph: Graph) -> list[str]:
        """Runs a prompt that succeeds; what it saved, relative to the output directory."""
        entry = self.run(graph)
        assert entry["status"]["status_str"] == "success", entry["status"]
        return [
            f"{image['subfolder']}/{image['filename']}"
            for output in entry["outputs"].values()
            for image in output["images"]
            if image["type"] == "output"
        ]

    def raw(self, request: bytes) -> bytes:
        """What comes back for these very bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(request)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer


def node(class_type: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def plain(prefix: object, color: int = 0) -> Graph:
    """A picture of one colour, saved."""
    return {
        "make": node("EmptyImage", width=8, height=4, batch_size=1, color=color),
        "save": node("SaveImage", images=["make", 0], filename_prefix=prefix),
    }


def copied(image: object, prefix: str, loader: str = "LoadImage", **more: object) -> Graph:
    """A picture that is loaded and saved as it is."""
    return {
        "load": node(loader, image=image, **more),
        "save": node("SaveImage", images=["load", 0], filename_prefix=prefix),
    }


def comfyui_below(folder: Path) -> ComfyUI:
    """The real ComfyUI, else a copy of the stand-in."""
    if REAL:
        python = _GIVEN["COMFYUI_PYTHON"]
        return find_comfyui(Path(str(_GIVEN["COMFYUI_DIR"])), Path(python) if python else None)
    copy = folder / "ComfyUI"
    shutil.copytree(STAND_IN, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "custom_nodes").mkdir()
    return ComfyUI(copy, Path(sys.executable))


def prepare(folder: Path) -> None:
    """A volume with something to find on it, and our node where the boot puts it."""
    volume, local = Layout(folder / "volume"), folder / "local"
    (volume.model_cache / "checkpoints").mkdir(parents=True)
    for place in (volume.model_cache / "checkpoints", volume.root, volume.ours):
        place.mkdir(exist_ok=True)
        (place / "secret.txt").write_bytes(SECRET)
        for kind in ("png", "wav", "latent", "mp4"):
            (place / f"secret.{kind}").write_bytes(PICTURE)
    for name in ("input", "user", "models/checkpoints"):
        (local / name).mkdir(parents=True)
    job = volume.jobs / "j1"
    for name in ("input", "output"):
        (job / name).mkdir(parents=True)
    (job / "input" / "x.png").write_bytes(PICTURE)
    (job / "link").symlink_to(volume.model_cache)
    (volume.jobs / "linked").mkdir()
    (volume.jobs / "linked" / "input").symlink_to(volume.model_cache)
    (job / "input" / "link.png").symlink_to(volume.model_cache / "checkpoints" / "secret.png")
    shutil.copytree(NODE, local / "nodes" / "morpheus_boot_node")
    (folder / "paths.yaml").write_text(
        f"morpheus:\n  custom_nodes: {local / 'nodes'}\n  checkpoints: {local / 'models/checkpoints'}\n"
    )


def variables(folder: Path, *, token: str | None = TOKEN) -> dict[str, str]:
    """What the boot puts into ComfyUI's environment for our node."""
    mounts = ("/workspace", "/workspace/job_data", "/runpod-volume", str(folder / "volume"))
    told = {
        "MORPHEUS_NODE_JOBS": str(folder / "volume" / "jobs"),
        "MORPHEUS_NODE_WORKER": WORKER,
        "MORPHEUS_NODE_MOUNTS": ":".join(mounts),
        "MORPHEUS_NODE_ORIGINS": "https://app.example",
    }
    if token is not None:
        told["MORPHEUS_NODE_TOKEN_SHA256"] = hashlib.sha256(token.encode()).hexdigest()
    return told


@contextmanager
def started(folder: Path, told: Mapping[str, str], *more: str) -> Iterator[Served]:
    """ComfyUI's process with the boot's arguments, whether or not it comes to listen."""
    [port] = free_ports(1)
    comfyui = comfyui_below(folder)
    command = [
        *(str(comfyui.python), "-u", str(comfyui.folder / "main.py"), "--cpu"),
        *("--listen", "127.0.0.1", "--port", str(port)),
        *("--output-directory", str(folder / "volume" / "jobs")),
        *("--input-directory", str(folder / "local" / "input")),
        *("--temp-directory", str(folder / "local")),
        *("--user-directory", str(folder / "local" / "user")),
        *("--extra-model-paths-config", str(folder / "paths.yaml")),
        *more,
    ]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            command,
            cwd=comfyui.folder,
            env={**os.environ, **told},
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield Served(folder, port, process)
        finally:
            process.kill()


@contextmanager
def serving(folder: Path, told: Mapping[str, str], *more: str) -> Iterator[Served]:
    """A ComfyUI that answers."""
    with started(folder, told, *more) as served:
        wait_until(lambda: _answers(served), START_LIMIT_S)
        yield served


def _answers(served: Served) -> bool:
    if served.process.poll() is not None:
        pytest.fail(f"ComfyUI ended at its start:\n{served.log}")
    try:
        return served.get("/system_stats").status_code == 200
    except requests.ConnectionError:
        return False


def node_errors(answer: requests.Response) -> dict[str, list[str]]:
    """The types of the errors, by node."""
    assert answer.status_code == 400, answer.text
    found = answer.json()["node_errors"]
    return {name: [error["type"] for error in entry["errors"]] for name, entry in found.items()}


def named(closed: Served, form: str, kind: str = "") -> str:
    """``form`` with this volume's paths in it."""
    return form.format(cache=closed.volume.model_cache, jobs=closed.jobs, kind=kind)


def everything(folder: Path) -> dict[str, bytes | None]:
    """All names on the volume outside of jobs/, with their content."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "jobs" not in path.parts
    }
