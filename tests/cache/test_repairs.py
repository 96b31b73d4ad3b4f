"""Models that are read again: what is found, and that a repair meets what is so when its turn comes."""

import itertools
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from filelock import FileLock

from morpheus_boot.cache.lock.lock import ModelLock
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.cache.records import read_record, write_record
from morpheus_boot.cache.repair import Condition, Verdict, confirm, judge, repair
from morpheus_boot.errors import OriginUnavailable
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.progress import Reading
from morpheus_boot.report.state import ModelStage
from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import Stopped
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import read_all, safetensors, sha256
from tests.testbed.faults import Status
from tests.testbed.origin import Origin
from tests.wait import wait_until

WEIGHTS: Final = safetensors(2 * MIB)
PATH: Final = "checkpoints/a.safetensors"


def damage(file: Path) -> None:
    """One flipped byte, with name, size and mtime as they were."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@dataclass(frozen=True, slots=True)
class Scene:
    """One cached model, damaged behind the cache's back."""

    root: Path
    origin: Origin
    wanted: ModelSpec

    @property
    def file(self) -> Path:
        return self.worker().layout.model(PATH)

    def worker(self, name: str = "worker-1") -> Worker:
        return Worker(self.root, name)

    def verdict(self) -> Verdict:
        record = read_record(self.worker().layout, PATH)
        assert record is not None
        return judge(self.worker().layout, record, threading.Event())

    def repair(self, verdict: Verdict, worker: Worker | None = None) -> Verdict:
        return repair(self.wanted, verdict, (worker or self.worker()).context)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Another worker is at the model, and beats."""
        lock = ModelLock(PATH, self.worker().layout.lock(PATH), "worker-2", LockTimes(beat_s=0.1))
        claim = lock.try_claim()
        assert claim is not None
        with claim:
            yield


@pytest.fixture
def scene(tmp_path: Path, origin: Origin) -> Scene:
    scene = Scene(tmp_path, origin, model(PATH, origin.serve("/a", WEIGHTS)))
    scene.worker().fill(scene.wanted)
    damage(scene.file)
    return scene


def test_a_long_reading_says_now_and_then_how_far_it_is(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "morpheus")
    layout = scene.worker().layout
    record = read_record(layout, PATH)
    assert record is not None
    seconds = itertools.count(step=11)
    reading = Reading(3 * record.size_bytes, lambda: float(next(seconds)))

    for _ in range(2):
        reading.begin(record.size_bytes)
        judge(layout, record, threading.Event(), reading)

    assert caplog.messages == ["read 2.1 MB of 6.3 MB", "read 4.2 MB of 6.3 MB"]


def test_a_model_that_another_worker_has_repaired_meanwhile_is_not_fetched_again(
    scene: Scene,
) -> None:
    stale = scene.verdict()
    other = scene.worker("worker-2")
    assert scene.repair(stale, other).condition is Condition.REPAIRED
    before = scene.origin.count()

    found = scene.repair(stale)

    assert (found.condition, found.detail) == (Condition.WHOLE, sha256(WEIGHTS))
    assert scene.origin.count() == before


def test_a_model_that_is_damaged_in_another_way_by_now_is_repaired_all_the_same(
    scene: Scene,
) -> None:
    stale = scene.verdict()
    os.truncate(scene.file, MIB)

    found = scene.repair(stale)

    assert found.condition is Condition.REPAIRED
    assert scene.file.read_bytes() == read_all(WEIGHTS)


def test_a_repair_waits_for_the_worker_that_is_at_the_model(scene: Scene) -> None:
    worker = scene.worker()
    verdict = scene.verdict()
    with scene.held():
        repaired = begin(lambda: scene.repair(verdict, worker), "repair")
        wait_until(lambda: worker.states != [])
        assert worker.states[0].stage is ModelStage.WAITING
        assert "worker-2" in worker.states[0].detail

    assert repaired.result(20).condition is Condition.REPAIRED
    assert scene.file.read_bytes() == read_all(WEIGHTS)


def test_a_repair_takes_over_from_a_holder_that_has_fallen_silent(scene: Scene) -> None:
    worker = scene.worker()
    silent_soon = replace(worker.options.lock_times, silence_s=0.1)
    worker.options = replace(worker.options, lock_times=silent_soon)
    with FileLock(worker.layout.lock(PATH), thread_local=False):
        found = scene.repair(scene.verdict(), worker)

    assert found.condition is Condition.REPAIRED


def test_a_repair_that_waits_ends_when_it_is_told_to_stop(scene: Scene) -> None:
    worker = scene.worker()
    verdict = scene.verdict()
    with scene.held():
        repaired = begin(lambda: scene.repair(verdict, worker), "repair")
        wait_until(lambda: worker.states != [])
        worker.stopping.set()

        with pytest.raises(Stopped):
            repaired.result(20)


def test_a_repair_that_fails_leaves_nothing_that_passes_for_whole(scene: Scene) -> None:
    scene.origin.misbehave("/a", Status(404))

    with pytest.raises(OriginUnavailable):
        scene.repair(scene.verdict())

    assert scene.verdict().condition is Condition.DAMAGED
    assert len(scene.worker().plan(scene.wanted).work) == 1


def test_what_was_read_again_and_is_whole_is_recorded_so(scene: Scene) -> None:
    worker = scene.worker()
    scene.repair(scene.verdict(), worker)
    record = read_record(worker.layout, PATH)
    assert record is not None
    write_record(
        worker.layout, replace(record, sha256=None, expected_sha256=sha256(WEIGHTS), mtime_ns=1)
    )

    verdict = scene.verdict()
    confirm(verdict, worker.context)

    assert verdict.condition is Condition.WHOLE
    assert read_record(worker.layout, PATH) == record


def test_a_record_that_changed_while_its_model_was_read_stays(scene: Scene) -> None:
    worker = scene.worker()
    verdict = replace(scene.verdict(), condition=Condition.WHOLE)
    scene.repair(verdict, worker)
    record = read_record(worker.layout, PATH)

    confirm(verdict, worker.context)

    assert read_record(worker.layout, PATH) == record
