"""Kills fills at random, many times over, and looks after each round whether a byte is wrong.

``python -m tests.bench.soak_kills --kills 100 [--seed N]`` prints what it did; it ends with 1 at the first wrong byte.
In each round two workers fill one volume, and one or both are killed: at a random moment, or at a random call below
libc. Half of the rounds leave what the killed ones left to the next round.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Final

from morpheus_boot.cache.records import read_record
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.volume.layout import Layout
from tests.cache.fill_process import FillProcess
from tests.cache.worker import MIB, Worker, model
from tests.testbed import shim as shim_bed
from tests.testbed.content import Content, read_all, safetensors, sha256, torch_pickle, torch_zip
from tests.testbed.faults import Fault, IgnoresRange, NoEtag, ResetAt, Trickling, WeakEtag
from tests.testbed.origin import Origin
from tests.testbed.shim import Shim

CONTENTS: Final[dict[str, Content]] = {
    "checkpoints/a.safetensors": safetensors(3 * MIB, seed=1),
    "controlnet/b.pth": torch_zip(2 * MIB + 12_345, seed=2),
    "ipadapter/c.bin": torch_pickle(MIB + 7, seed=3),
}
RIGHT: Final = {path: read_all(content) for path, content in CONTENTS.items()}
WORKERS: Final = ("worker-1", "worker-2")
SYNC_BYTES: Final = MIB // 4
# One model takes a second, and a worker that brings in all of them makes about 200 calls.
CAP_BYTES_PER_S: Final = 3 * MIB
MOST_CALLS: Final = 200
LONGEST_S: Final = 3.0
ROUND_S: Final = 120.0


class Wrong(Exception):
    """What must never be."""


@dataclass(frozen=True, slots=True)
class Death:
    """How one worker is to die: at a call, or after so many seconds."""

    call: int | None = None
    do: str = "kill-after"
    seconds: float | None = None


@dataclass(slots=True)
class Soak:
    """All rounds on volumes below ``folder``; ``done`` counts what happened."""

    folder: Path
    origin: Origin
    shim: Shim | None
    draw: random.Random
    done: Counter[str] = field(default_factory=Counter)

    def run(self, kills: int) -> None:
        """Rounds until so many workers were killed. Raises Wrong."""
        models = [
            model(path, self.origin.serve(f"/{path}", content), sha256=digest)
            for path, content in CONTENTS.items()
            for digest in [sha256(content) if path.startswith("controlnet") else None]
        ]
        while self.done["kills"] < kills:
            self.done["volumes"] += 1
            root = self.folder / str(self.done["volumes"])
            root.mkdir()
            self._round(root, models)
            while self.done["kills"] < kills and self.draw.random() < 0.5:
                self._round(root, models)
            self._finish(root, models)
            shutil.rmtree(root)

    def _round(self, root: Path, models: list[ModelSpec]) -> None:
        self.done["rounds"] += 1
        self._misbehave()
        deaths = {name: self._death() for name in WORKERS[: self.draw.choice((1, 1, 2))]}
        with ExitStack() as running:
            processes: dict[str, Popen[str]] = {}
            for name in WORKERS:
                shuffled = self.draw.sample(models, len(models))
                fill = FillProcess(root, tuple(shuffled), sync_bytes=SYNC_BYTES)
                env = self._env(root, deaths.get(name))
                processes[name] = running.enter_context(fill.running(name, env))
            self._kill_by_time(processes, deaths)
            for name, process in processes.items():
                _, errors = process.communicate(timeout=ROUND_S)
                self._count(name, process.returncode, errors)
        _require_whole(root)

    def _misbehave(self) -> None:
        faults: list[Fault | None] = [None, IgnoresRange(), NoEtag(last_modified=False), WeakEtag()]
        faults.append(ResetAt(self.draw.randrange(MIB)))
        fault = self.draw.choice(faults)
        self.origin.behave()
        self.origin.misbehave("/", Trickling(CAP_BYTES_PER_S))
        if fault is not None:
            self.origin.misbehave("/", fault, times=self.draw.randrange(1, 9))

    def _death(self) -> Death:
        if self.shim is None or self.draw.random() < 0.5:
            return Death(seconds=self.draw.uniform(0.2, LONGEST_S))
        do = self.draw.choice(("kill-before", "kill-after"))
        return Death(call=self.draw.randint(1, MOST_CALLS), do=do)

    def _env(self, root: Path, death: Death | None) -> dict[str, str]:
        if self.shim is None or death is None or death.call is None:
            return {}
        return self.shim.env(root=root, at=death.call, do=death.do)

    def _kill_by_time(self, processes: dict[str, Popen[str]], deaths: dict[str, Death]) -> None:
        began = time.monotonic()
        timed = [(d.seconds, processes[n]) for n, d in deaths.items() if d.seconds is not None]
        for seconds, process in sorted(timed, key=lambda t: t[0]):
            try:
                process.wait(max(0.0, began + seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

    def _count(self, name: str, returncode: int, errors: str) -> None:
        if returncode == -signal.SIGKILL:
            self.done["kills"] += 1
        elif returncode:
            raise Wrong(f"{name}, which nobody killed, ended with {returncode}: {errors}")

    def _finish(self, root: Path, models: list[ModelSpec]) -> None:
        self.origin.behave()
        worker = Worker(root, "worker-3")
        worker.fill(*models)
        _require_whole(root)
        if worker.plan(*models).work:
            raise Wrong(f"still to do after a whole fill: {worker.plan(*models).work}")
        left = list(worker.layout.parts.glob("*"))
        if left:
            raise Wrong(f"left behind: {left}")


def _require_whole(root: Path) -> None:
    """Raises Wrong where a name below model_cache/ or a record holds what it must not."""
    layout = Layout(root)
    for path, right in RIGHT.items():
        file, record = layout.model(path), read_record(layout, path)
        if file.exists() and file.read_bytes() != right:
            raise Wrong(f"{file} holds wrong bytes")
        if record is not None and record.sha256 not in (None, sha256(CONTENTS[path])):
            raise Wrong(f"the record of {file} names {record.sha256}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Soaks; returns the exit code."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="draw the same deaths again")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    reason = shim_bed.reason_missing()
    print(f"seed {seed}" + (f"; kills by time alone: {reason}" if reason else ""), flush=True)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="soak-kills-"))
    with Origin() as origin:
        shim = None if reason else shim_bed.build(folder)
        soak = Soak(folder, origin, shim, random.Random(seed))  # noqa: S311 - draws deaths, no secrets
        try:
            soak.run(options.kills)
        except Wrong as wrong:
            print(f"WRONG in round {soak.done['rounds']}, as {folder} shows: {wrong}")
            return 1
        finally:
            done = ", ".join(f"{count} {what}" for what, count in soak.done.items())
            sent = origin.count().body_bytes / sum(map(len, RIGHT.values()))
            spent_s = time.monotonic() - began
            print(f"{done}; {sent:.1f} whole fills sent; {spent_s:.0f} s", flush=True)
    shutil.rmtree(folder)
    print("no byte was wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
