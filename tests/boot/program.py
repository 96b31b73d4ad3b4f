"""The program as its user runs it: a process with arguments and an environment, a log, an exit code."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import requests

from morpheus_boot.smoke.inner import free_ports
from tests.wait import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
STAND_IN = REPOSITORY / "morpheus_boot" / "smoke" / "stand-in"


@dataclass(frozen=True)
class Ended:
    """One run to its end."""

    code: int
    out: str
    err: str


@dataclass
class Site:
    """A container: a volume, a local folder, two free ports, a ComfyUI (the stand-in), and no other environment."""

    root: Path
    models: str = "version: 1\nmodels: []\n"
    environ: Mapping[str, str] = field(default_factory=dict)
    comfyui: Path = field(init=False)
    fileserver_port: int = field(init=False)
    comfyui_port: int = field(init=False)

    def __post_init__(self) -> None:
        # A copy: the boot links models into it.
        self.comfyui = Path(shutil.copytree(STAND_IN, self.root / "ComfyUI"))
        (self.comfyui / "custom_nodes").mkdir(exist_ok=True)
        self.fileserver_port, self.comfyui_port = free_ports(2)

    @property
    def volume(self) -> Path:
        return self.root / "volume"

    @property
    def local(self) -> Path:
        return self.root / "local"

    @property
    def manifest(self) -> Path:
        path = self.root / "models.yaml"
        path.write_text(self.models)
        return path

    def command(self, *arguments: str) -> list[str]:
        return [
            *(sys.executable, "-m", "morpheus_boot", *arguments),
            *("--models", str(self.manifest), "--volume", str(self.volume)),
            *("--comfyui", str(self.comfyui)),
        ]

    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "MORPHEUS_LOCAL_DIR": str(self.local),
            "COMFYUI_PYTHON": sys.executable,
            "COMFYUI_PORT": str(self.comfyui_port),
            "FILESERVER_PORT": str(self.fileserver_port),
            **self.environ,
        }

    def run(self, *arguments: str) -> Ended:
        """Runs a command to its end."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.env(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> "Program":
        """Starts a command that stays."""
        return Program(self, arguments)


class Program:
    """A running ``up`` or ``files``; leaves nothing running at the end of its ``with``."""

    def __init__(self, site: Site, arguments: tuple[str, ...]) -> None:
        self._site = site
        self._process = subprocess.Popen(
            site.command(*arguments),
            env=site.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def get(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self._site.fileserver_port}{path}", timeout=10)

    def post(self, path: str, **more: Any) -> requests.Response:
        url = f"http://127.0.0.1:{self._site.fileserver_port}{path}"
        return requests.post(url, timeout=10, **more)

    def ping(self) -> int:
        try:
            return self.get("/ping").status_code
        except requests.ConnectionError:
            return 0

    def wait_until_ready(self, timeout_s: float = 30) -> None:
        def ready() -> None:
            if self._process.poll() is not None:
                raise RuntimeError(self.log)
            assert self.ping() == 200, self.log

        wait_until(ready, timeout_s)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Sends a signal; returns the exit code, which must come within the grace and a second."""
        self._process.send_signal(signum)
        return self.wait(timeout_s=5)

    def wait(self, timeout_s: float = 30) -> int:
        code = self._process.wait(timeout_s)
        self._reader.join(10)
        return code

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.append(line)
