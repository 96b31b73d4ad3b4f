"""The handler as the boot starts it: a script that a Python with RunPod's SDK runs, and nothing of ours beside it."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from tests.jobs.workers import Worker
from tests.testbed.job_queue import JobQueue
from tests.wait import wait_until

HANDLER: Final = Path(__file__).parents[2] / "morpheus_boot" / "queue" / "handler.py"


class Handler:
    """One handler; ended at the end of its ``with``."""

    def __init__(
        self,
        python: Path,
        log: Path,
        environ: Mapping[str, str],
        *arguments: str,
        script: Path = HANDLER,
    ) -> None:
        self._log = log
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [str(python), "-u", str(script), *arguments],
                env={**kept, "PYTHONSAFEPATH": "1", "RUNPOD_LOG_LEVEL": "INFO", **environ},
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        """SIGTERM to its group, as the boot does; returns its exit code."""
        os.killpg(self.process.pid, signal.SIGTERM)
        return self.process.wait(5)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def handler_of(
    queue: JobQueue, worker: Worker, python: Path, name: str = "pod-1", **more: str
) -> Handler:
    """A handler that takes ``queue``'s jobs to ``worker``, once it has begun to."""
    environ = {**queue.environ(name), "FILESERVER_PORT": str(worker.files.port), **more}
    handler = Handler(python, worker.root / f"handler-{name}.log", environ)
    polls = len(queue.asked)
    try:
        wait_until(lambda: "GET /job-take" in queue.asked[polls:], 30)
    except AssertionError:
        handler.kill()
        raise AssertionError(handler.log) from None
    return handler
