"""A worker as the boot makes one: a file server, and a ComfyUI that our node guards; several on one volume."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import requests

from morpheus_boot.cache.lock.heartbeat import Heart
from morpheus_boot.smoke import samples
from morpheus_boot.volume.layout import Layout
from tests.fileserver.serving import FileServer, free_port
from tests.guard.served import NODE, REAL, START_LIMIT_S, comfyui_below
from tests.jobs.graphs import FLUX
from tests.wait import wait_until

REPOSITORY: Final = Path(__file__).parents[2]
# A worker's own beat is each 15 s, and its silence 60 s.
_BEAT_S: Final = 0.5
PATIENCE_S: Final = 60.0
_OVER: Final = frozenset({"done", "failed", "cancelled"})

Json = dict[str, Any]


class ComfyUIProcess:
    """ComfyUI on one port; ``kill`` and ``start`` as often as a test likes."""

    def __init__(self, root: Path, volume: Layout, worker: str) -> None:
        self.root = root
        self.port = free_port()
        self._volume = volume
        self._worker = worker
        self._comfyui = comfyui_below(root)
        for name in ("input", "user", "models"):
            (root / name).mkdir()
        volume.jobs.mkdir(parents=True, exist_ok=True)
        shutil.copytree(NODE, root / "nodes" / "morpheus_boot_node")
        shutil.copy(Path(__file__).with_name("strange_nodes.py"), root / "nodes")
        (root / "paths.yaml").write_text(
            f"morpheus:\n  custom_nodes: {root / 'nodes'}\n  checkpoints: {volume.model_cache / 'checkpoints'}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, unless it runs, and waits until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        folder, port = self._comfyui.folder, str(self.port)
        command = [
            *(str(self._comfyui.python), "-u", str(folder / "main.py"), "--cpu"),
            *("--listen", "127.0.0.1", "--port", port),
            *("--output-directory", str(self._volume.jobs)),
            *("--input-directory", str(self.root / "input")),
            *("--temp-directory", str(self.root)),
            *("--user-directory", str(self.root / "user")),
            *("--extra-model-paths-config", str(self.root / "paths.yaml")),
        ]
        mounts = ("/workspace", "/runpod-volume", str(self._volume.root))
        told = {
            "MORPHEUS_NODE_JOBS": str(self._volume.jobs),
            "MORPHEUS_NODE_WORKER": self._worker,
            "MORPHEUS_NODE_MOUNTS": ":".join(mounts),
        }
        with (self.root / "comfyui.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **told}, stdout=log, stderr=log
            )
        wait_until(self._answers, START_LIMIT_S)

    def kill(self) -> None:
        """Ends it as an out-of-memory killer would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def get(self, path: str) -> Any:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=30).json()

    @property
    def log(self) -> str:
        return (self.root / "comfyui.log").read_text()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/system_stats", timeout=30).ok
        except requests.ConnectionError:
            return False


class Worker:
    """One worker of a volume."""

    def __init__(
        self,
        root: Path,
        volume: Path,
        name: str = "worker-1",
        command: Sequence[str] = (sys.executable, "-m", "fileserver"),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        self.name = name
        self.volume = Layout(volume)
        root.mkdir()
        self.volume.workflows.mkdir(parents=True, exist_ok=True)
        for workflow in (REPOSITORY / "workflows").glob("*.json"):
            shutil.copy(workflow, self.volume.workflows)
        if not REAL:
            checkpoint = self.volume.model("checkpoints") / FLUX
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.write_bytes(samples.filler(1000, seed=1))
        self.comfyui = ComfyUIProcess(root, self.volume, name)
        self._heart = Heart(self.volume.workers / f"{name}.json", name, _BEAT_S)
        self._command = command
        self._env = {"MORPHEUS_WORKER": name, "COMFYUI_PORT": str(self.comfyui.port), **(env or {})}
        self.files = self._file_server()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _file_server(self) -> FileServer:
        return FileServer(
            self.root, volume=self.volume.root, command=list(self._command), env=self._env
        )

    def restart_files(self) -> None:
        """The boot's work after its file server died."""
        self.files = self._file_server()

    def revive(self) -> None:
        """What of it a test has ended is started again, as by the boot."""
        if self.files.process.poll() is not None:
            self.restart_files()
        self.comfyui.start()

    def kill(self) -> None:
        """The whole worker is gone, as with its host."""
        self.files.kill()
        self.comfyui.kill()
        self.fall_silent()

    def fall_silent(self) -> None:
        """Its heart beats no more, and there is no last beat."""
        beat = self.volume.workers / f"{self.name}.json"
        content = beat.read_bytes()
        self._heart.end()
        beat.write_bytes(content)

    def stop(self) -> None:
        self.files.stop()
        self.comfyui.kill()
        self._heart.end()

    def post(self, job: Json) -> str:
        """Posts a job that is in order; its id."""
        answer = self.files.post("/jobs", json=job)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["worker_job_id"])

    def job(self, job: str) -> Json:
        answer = self.files.get(f"/jobs/{job}")
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def ended(self, job: str, limit_s: float = PATIENCE_S) -> Json:
        """Waits until the job is over; its answer."""
        found: list[Json] = []

        def over() -> bool:
            found.append(self.job(job))
            return found[-1]["status"] in _OVER

        wait_until(over, limit_s)
        return found[-1]

    def done(self, job: Json) -> Json:
        """Posts a job and waits until it is done; its answer."""
        ended = self.ended(self.post(job))
        assert ended["status"] == "done", ended
        return ended

    def upload(self, job: str, content: bytes, name: str = "x.png") -> str:
        """Uploads a picture; what LoadImage takes for it."""
        answer = self.files.upload(content, name, worker_job_id=job)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["comfy_path"])
