"""The stand-in ComfyUI in a process of its own, as the boot starts it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from morpheus_boot.smoke.inner import free_ports
from tests.wait import wait_until

SOURCE = Path(__file__).parents[2] / "morpheus_boot" / "smoke" / "stand-in"
_LIMIT_S = 20.0


@dataclass(frozen=True)
class StandIn:
    """A running stand-in and its folders."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        return requests.get(f"{self.url}{path}", timeout=10).json()

    def post(self, path: str, body: object) -> requests.Response:
        return requests.post(f"{self.url}{path}", json=body, timeout=10)

    def submit(self, graph: dict[str, Any], **more: object) -> str:
        """Queues a prompt that is in order; its id."""
        answer = self.post("/prompt", {"prompt": graph, **more})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["prompt_id"])

    def outcome(self, prompt_id: str) -> dict[str, Any]:
        """Waits until the prompt has ended; its entry in the history."""
        path = f"/history/{prompt_id}"
        wait_until(lambda: bool(self.get(path)), _LIMIT_S)
        entry: dict[str, Any] = self.get(path)[prompt_id]
        return entry

    def run(self, graph: dict[str, Any]) -> dict[str, Any]:
        return self.outcome(self.submit(graph))


def prepare(folder: Path) -> Path:
    """A copy of the stand-in with the folders that a ComfyUI has."""
    comfyui = folder / "ComfyUI"
    shutil.copytree(SOURCE, comfyui, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("custom_nodes", "models/checkpoints", "models/upscale_models"):
        (comfyui / name).mkdir(parents=True)
    for name in ("output", "input", "user"):
        (folder / name).mkdir()
    return comfyui


def command(folder: Path, port: int, *more: str) -> list[str]:
    """The arguments that the boot gives to ComfyUI."""
    return [
        sys.executable,
        str(folder / "ComfyUI" / "main.py"),
        *("--listen", "127.0.0.1", "--port", str(port)),
        *("--output-directory", str(folder / "output")),
        *("--input-directory", str(folder / "input")),
        *("--temp-directory", str(folder)),
        *("--user-directory", str(folder / "user")),
        *more,
    ]


@contextmanager
def running(folder: Path, *more: str) -> Iterator[StandIn]:
    """A stand-in that answers; its folders are below ``folder``, which `prepare` has filled."""
    [port] = free_ports(1)
    with subprocess.Popen(command(folder, port, *more)) as process:
        try:
            stand_in = StandIn(folder, port, process)
            wait_until(lambda: _answers(stand_in), _LIMIT_S)
            yield stand_in
        finally:
            process.kill()


def _answers(stand_in: StandIn) -> bool:
    if stand_in.process.poll() is not None:
        raise RuntimeError(f"the stand-in ended at its start with {stand_in.process.returncode}")
    try:
        requests.get(stand_in.url, timeout=10)
    except requests.ConnectionError:
        return False
    return True
