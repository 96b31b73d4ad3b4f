"""What a worker does while others have what it wants: it counts, asks and says little, and misses nothing."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest
from filelock import FileLock

from morpheus_boot.cache.lock.heartbeat import Heart
from morpheus_boot.cache.lock.lock import ModelLock
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.errors import VolumeFull, WaitedTooLong
from morpheus_boot.report.state import ModelStage
from tests.cache.scene import PATH, WEIGHTS, Scene, filling, finish, waiting
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import safetensors
from tests.testbed.exchange import Reply, Request, Wait
from tests.testbed.faults import Fault, Gate
from tests.testbed.origin import Origin
from tests.wait import wait_until

NEXT: Final = "loras/b.safetensors"


@dataclass(frozen=True, slots=True)
class Unanswered(Fault):
    """Holds a request before its answer, until it is answered."""

    asked: threading.Event = field(default_factory=threading.Event)
    answer: threading.Event = field(default_factory=threading.Event)

    def reply(self, request: Request, reply: Reply) -> Reply:
        self.asked.set()
        return replace(reply, before=(*reply.before, Wait(until=self.answer)))


@pytest.fixture
def scene(tmp_path: Path, origin: Origin) -> Scene:
    return Scene(tmp_path, origin, origin.serve("/a", WEIGHTS))


@contextmanager
def beating(heartbeat: Path) -> Iterator[None]:
    """Whoever holds a lock and is at work."""
    heart = Heart(heartbeat, "worker-1", 0.05)
    try:
        yield
    finally:
        heart.end()


def test_a_killed_holder_is_replaced_while_the_waiter_fetches_another_model(scene: Scene) -> None:
    waiter = scene.worker("worker-2")
    times = replace(waiter.options.transfer_times, models=2)
    waiter = replace(waiter, options=replace(waiter.options, transfer_times=times))
    other = model(NEXT, scene.origin.serve("/b", WEIGHTS))
    busy = Gate(MIB)
    with scene.held(scene.process()) as (process, _):
        scene.origin.misbehave("/b", busy, after=1, times=1)
        with filling(waiter, scene.wanted(), other):
            wait_until(lambda: waiting(waiter.states) != [])
            busy.wait_reached()
            process.kill()

            wait_until(scene.final.exists)

            assert not scene.layout.model(NEXT).exists()
            busy.open()

    scene.assert_right()


def test_a_look_at_a_model_that_another_fetches_opens_its_lock_heartbeat_and_record_alone(
    scene: Scene,
) -> None:
    telling = replace(scene.process(), tells_opens=True)
    with (
        scene.held(scene.process()) as (holder, gate),
        telling.running("worker-2") as waiter,
    ):
        assert waiter.stdout is not None
        said = map(json.loads, waiter.stdout)
        waits = 0
        opened = set[tuple[str, str]]()
        while waits < 5:
            line = next(said)
            waits += line.get("stage") == ModelStage.WAITING
            if waits >= 2 and "stage" not in line:
                opened |= set(line.items())
        gate.open()
        finish(holder)

    looked_at = (scene.layout.lock(PATH), scene.heartbeat, scene.layout.record(PATH))
    assert opened == {("open", str(path)) for path in looked_at}


def publish_from(elsewhere: Worker, root: Path) -> None:
    """Another worker, whom no lock kept out, publishes and records what it has."""
    for published in (elsewhere.layout.model(PATH), elsewhere.layout.record(PATH)):
        there = root / published.relative_to(elsewhere.root)
        there.parent.mkdir(parents=True, exist_ok=True)
        published.rename(there)


def test_a_model_that_is_there_is_taken_though_its_lock_stays_held(
    scene: Scene, tmp_path: Path
) -> None:
    waiter, elsewhere = scene.worker("worker-2"), Worker(tmp_path / "elsewhere")
    elsewhere.fill(scene.wanted())
    lock = scene.layout.lock(PATH)
    lock.parent.mkdir(parents=True)
    with FileLock(lock), beating(scene.heartbeat), filling(waiter, scene.wanted()):
        wait_until(lambda: waiting(waiter.states) != [])
        publish_from(elsewhere, scene.root)
        wait_until(lambda: waiter.states[-1].stage is ModelStage.PRESENT)


def test_a_model_that_came_while_it_was_fetched_is_not_replaced(
    scene: Scene, tmp_path: Path
) -> None:
    elsewhere = Worker(tmp_path / "elsewhere")
    elsewhere.fill(scene.wanted())
    inode = elsewhere.layout.model(PATH).stat().st_ino
    with scene.held(scene.process()) as (process, gate):
        publish_from(elsewhere, scene.root)
        gate.open()
        finish(process)

    scene.assert_right()
    assert scene.final.stat().st_ino == inode


def test_the_deadline_of_a_wait_counts_the_waiting_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    now = [0.0]
    times = LockTimes(deadline_s=10.0, poll_s=0.5)
    waiter = ModelLock(PATH, path, "worker-2", times, lambda: now[0])
    with FileLock(path):
        assert waiter.try_claim() is None
        now[0] += 3600.0  # this worker's own downloads
        assert waiter.try_claim() is None

        def wait_for(seconds: float) -> None:
            until = now[0] + seconds
            while now[0] < until:
                now[0] += 0.5
                assert waiter.try_claim() is None

        wait_for(7.0)
        with pytest.raises(WaitedTooLong, match="after 10 s"):
            wait_for(1.0)


def test_what_others_brought_while_the_origin_was_asked_is_not_missing_any_more(
    tmp_path: Path, origin: Origin
) -> None:
    one = model(PATH, origin.serve("/a", WEIGHTS))
    two = model(NEXT, origin.serve("/b", WEIGHTS))
    question = Unanswered()
    origin.misbehave("/a", question, times=1)
    slow = Worker(tmp_path, "worker-2", size_bytes=int(2.1 * WEIGHTS.size_bytes))
    with filling(slow, one, two):
        assert question.asked.wait(10)
        Worker(tmp_path).fill(one, two)
        question.answer.set()

    assert {s.path for s in slow.states if s.stage is ModelStage.PRESENT} == {PATH, NEXT}


def test_what_is_still_missing_and_does_not_fit_is_73_all_the_same(
    tmp_path: Path, origin: Origin
) -> None:
    one = model(PATH, origin.serve("/a", WEIGHTS))
    two = model(NEXT, origin.serve("/b", safetensors(2 * WEIGHTS.size_bytes)))
    question = Unanswered()
    origin.misbehave("/a", question, times=1)
    slow = Worker(tmp_path, "worker-2", size_bytes=2 * WEIGHTS.size_bytes)

    def race() -> None:
        with filling(slow, one, two):
            assert question.asked.wait(10)
            Worker(tmp_path).fill(one)
            question.answer.set()

    with pytest.raises(VolumeFull, match=r"8\.4 MB are needed"):
        race()

    assert not slow.layout.model(NEXT).exists()
