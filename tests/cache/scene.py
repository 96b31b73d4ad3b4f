"""One volume and one model behind an origin, and workers that are held, killed or fill beside the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen
from typing import Final

from morpheus_boot.cache.lock.lock import heartbeat_of, takeover_of
from morpheus_boot.cache.records import read_record
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import ModelStage, ModelState
from morpheus_boot.volume.layout import Layout
from tests.cache.fill_process import FillProcess, journalled_bytes
from tests.cache.worker import MIB, QUICK, Worker, model
from tests.testbed.content import read_all, safetensors, sha256
from tests.testbed.faults import Fault, Gate
from tests.testbed.origin import Origin
from tests.wait import wait_until

SYNC_BYTES: Final = MIB // 4
WEIGHTS: Final = safetensors(4 * MIB)
RIGHT: Final = read_all(WEIGHTS)
PATH: Final = "checkpoints/a.safetensors"
# Longer than any test: only a lock that was freed is taken, however slow this machine is.
NEVER_S: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Scene:
    """One volume, and one model behind an origin."""

    root: Path
    origin: Origin
    url: str

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def final(self) -> Path:
        return self.layout.model(PATH)

    @property
    def heartbeat(self) -> Path:
        return heartbeat_of(self.layout.lock(PATH))

    @property
    def takeover_heartbeat(self) -> Path:
        return heartbeat_of(takeover_of(self.layout.lock(PATH)))

    def wanted(self, digest: str | None = None) -> ModelSpec:
        return model(PATH, self.url, sha256=digest)

    def process(self, *wanted: ModelSpec, silence_s: float = NEVER_S) -> FillProcess:
        return FillProcess(
            self.root,
            wanted or (self.wanted(),),
            sync_bytes=SYNC_BYTES,
            chunk_bytes=SYNC_BYTES,
            silence_s=silence_s,
        )

    def worker(self, name: str, *, silence_s: float = NEVER_S, deadline_s: float = 20.0) -> Worker:
        times = replace(QUICK.lock_times, silence_s=silence_s, deadline_s=deadline_s)
        transfer_times = replace(
            QUICK.transfer_times, sync_bytes=SYNC_BYTES, chunk_bytes=SYNC_BYTES
        )
        options = replace(QUICK, lock_times=times, transfer_times=transfer_times)
        return Worker(self.root, name, options=options)

    def gate(self, at: int, *before: Fault, waits: bool = False) -> Gate:
        """Holds the next worker after ``at`` bytes of the model; its first request asks for the size alone.

        One that ``waits`` for another asks so a second time when its turn comes.
        """
        gate = Gate(at)
        self.origin.misbehave("/a", *before, gate, after=2 if waits else 1, times=1)
        return gate

    def fetched_bytes(self) -> int:
        wait_until(lambda: self.origin.ledger.running == 0)
        return self.origin.count("/a").body_bytes

    def parts(self) -> list[Path]:
        return sorted(self.layout.parts.glob("*.part"))

    def journalled_bytes(self) -> int:
        return journalled_bytes(self.layout)

    @contextmanager
    def held(
        self, fill: FillProcess, at: int = 2 * MIB, *, worker: str = "worker-1"
    ) -> Iterator[tuple[Popen[str], Gate]]:
        """A worker that has ``at`` bytes (all but what follows its last sync are named) and waits for more."""
        gate = self.gate(at)
        with fill.running(worker) as process:
            gate.wait_reached()
            wait_until(lambda: self.journalled_bytes() > at - 2 * SYNC_BYTES)
            yield process, gate

    def leave_half(self, *wanted: ModelSpec) -> Path:
        """The part of a worker that was killed with half of the model; the origin behaves from then on."""
        with self.held(self.process(*wanted)) as (process, _):
            process.kill()
        self.origin.behave()
        (part,) = self.parts()
        return part

    def assert_right(self) -> None:
        assert self.final.read_bytes() == RIGHT
        record = read_record(self.layout, PATH)
        assert record is not None
        assert record.sha256 in (None, sha256(WEIGHTS))
        assert list(self.layout.parts.glob("*")) == []


def finish(process: Popen[str]) -> None:
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


def waiting(states: list[ModelState]) -> list[ModelState]:
    return [state for state in states if state.stage is ModelStage.WAITING]


@contextmanager
def filling(worker: Worker, *wanted: ModelSpec) -> Iterator[threading.Thread]:
    """A worker of this process, at work beside the test; it has to be done by the end."""
    failures: list[BaseException] = []

    def fill() -> None:
        try:
            worker.fill(*wanted)
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            failures.append(error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()
    if failures:
        raise failures[0]
