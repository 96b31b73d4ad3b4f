"""The stand-in ComfyUI in a process of its own, as the boot starts it."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from morpheus_boot.smoke.inner import free_ports

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

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited {_LIMIT_S} s until {what}"

    def outcome(self, prompt_id: str) -> dict[str, Any]:
        """Waits until the prompt has ended; its entry in the history."""
        path = f"/history/{prompt_id}"
        self.wait_until(lambda: bool(self.get(path)), f"{prompt_id} has ended")
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
            stand_in.wait_until(lambda: _answers(stand_in), "the stand-in answers")
            yield stand_in
        finally:
            process.kill()


def _answers(stand_in: StandIn) -> bool:
    assert stand_in.process.poll() is None, "the stand-in ended at its start"
    try:
        requests.get(stand_in.url, timeout=10)
    except requests.ConnectionError:
        return False
    return True
