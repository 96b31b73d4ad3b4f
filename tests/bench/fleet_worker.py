"""One worker of the fleet that tests/bench/fleet.py measures: a process that boots up to its links, and times itself.

``python -m tests.bench.fleet_worker VOLUME FOLDER`` reads commands from stdin, a word a line (``cold``, or ``warm``
where nothing may have to be fetched), and answers each by a line of JSON. FOLDER is its own, models.yaml lies above.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

REPOSITORY: Final = Path(__file__).resolve().parents[2]
# A path that is asked for where a phase begins, so that who reads a trace of the calls knows whose they are.
MARK: Final = "/proc/bench-phase-"


def work(root: Path, folder: Path) -> None:
    """Announces itself at the first command, then plans, fills and links at each, until stdin ends."""
    began = time.perf_counter()
    from morpheus_boot.cache import fill
    from morpheus_boot.comfyui.links import Link, put_links
    from morpheus_boot.config.settings import Invocation, Overrides, read_settings
    from morpheus_boot.deployment import (
        announce,
        make_volume_folder,
        read_deployment,
    )

    imported = time.perf_counter()
    invocation = Invocation(read_settings(Overrides(folder.parent / "models.yaml", root)))
    deployment = read_deployment(invocation)
    say(imports_ms=(imported - began) * 1000, read_ms=(time.perf_counter() - imported) * 1000)
    make_volume_folder(deployment.volume)
    heart = None

    for number, command in enumerate(sys.stdin):
        if heart is None:
            with phase("announce"):
                heart = announce(deployment)
        at = time.perf_counter()
        with phase("plan"):
            plan = deployment.plan()
            if command.strip() == "warm" and plan.work:
                raise SystemExit(f"not warm: {plan.work}")
            cached = fill(plan, deployment.context(threading.Event()))
        planned = time.perf_counter()
        with phase("links"):
            links = [Link(model.model.path, model.file) for model in cached]
            put_links(folder / f"models-{number}", links, deployment.volume.layout.model_cache)
        linked = time.perf_counter()
        say(plan_ms=(planned - at) * 1000, links_ms=(linked - planned) * 1000)
    if heart is not None:
        heart.end()


def say(**figures: float) -> None:
    print(json.dumps(figures), flush=True)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Tells strace's reader which calls are whose."""
    Path(f"{MARK}{name}").exists()
    yield
    Path(f"{MARK}end").exists()


class Worker:
    """Such a process, as the benchmark sees it; ``trace`` is where strace writes its calls."""

    def __init__(self, root: Path, folder: Path, *, trace: Path | None = None) -> None:
        folder.mkdir(parents=True)
        strace = [] if trace is None else ["strace", "-f", "-y", "-qq", "-o", str(trace)]
        self._process = subprocess.Popen(
            [*strace, sys.executable, "-m", "tests.bench.fleet_worker", str(root), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={
                "PATH": os.environ["PATH"],
                "MORPHEUS_LOCAL_DIR": str(folder),
                "RUNPOD_ENDPOINT_ID": "bench",
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with {self._process.wait()}")
        figures: dict[str, float] = json.loads(line)
        return figures

    def end(self) -> None:
        """Lets it end in good order, and waits for that."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.wait(30)


if __name__ == "__main__":
    work(*map(Path, sys.argv[1:]))
