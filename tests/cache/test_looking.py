"""Looking at who is at a model: who looks is not taken for a holder, nor for longer silent than it was."""

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest
from filelock import FileLock

from morpheus_boot.cache.lock.heartbeat import Beat
from morpheus_boot.cache.lock.lock import ModelLock, heartbeat_of, takeover_of, who_holds
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.volume.layout import Layout

PATH: Final = "loras/a.safetensors"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def leave_beat(lock: Path, worker: str) -> None:
    """What a worker that was killed leaves."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    heartbeat_of(lock).write_text(json.dumps(asdict(Beat(worker, 1))))


def test_who_is_at_a_model_is_seen(layout: Layout) -> None:
    claim = ModelLock(PATH, layout.lock(PATH), "worker-1", LockTimes()).try_claim()
    assert claim is not None
    with claim:
        assert who_holds(layout, PATH) == Beat("worker-1", 1)
    assert who_holds(layout, PATH) is None


def test_who_goes_on_in_place_of_another_is_seen_first(layout: Layout) -> None:
    leave_beat(layout.lock(PATH), "worker-1")
    leave_beat(takeover_of(layout.lock(PATH)), "worker-2")
    with FileLock(layout.lock(PATH)), FileLock(takeover_of(layout.lock(PATH))):
        seen = who_holds(layout, PATH)

    assert seen is not None
    assert seen.worker == "worker-2"


def test_two_who_look_at_once_do_not_see_each_other(layout: Layout) -> None:
    leave_beat(layout.lock(PATH), "killed")
    looking = os.open(layout.lock(PATH), os.O_RDONLY)
    try:
        fcntl.flock(looking, fcntl.LOCK_SH)

        assert who_holds(layout, PATH) is None
    finally:
        os.close(looking)


def test_a_lock_that_is_held_without_a_beat_is_no_download(layout: Layout) -> None:
    layout.locks.mkdir(parents=True)
    with FileLock(layout.lock(PATH)):
        assert who_holds(layout, PATH) is None


def test_looking_makes_nothing(layout: Layout) -> None:
    assert who_holds(layout, PATH) is None
    assert list(layout.root.iterdir()) == []


def test_what_a_waiter_hung_for_is_no_silence_of_the_holders(layout: Layout) -> None:
    leave_beat(layout.lock(PATH), "worker-1")
    now = [0.0]
    times = LockTimes(silence_s=30.0, poll_s=0.5)
    waiter = ModelLock(PATH, layout.lock(PATH), "worker-2", times, clock=lambda: now[0])
    with FileLock(layout.lock(PATH)):
        assert waiter.try_claim() is None
        now[0] += 300.0
        assert waiter.try_claim() is None
        while (claim := waiter.try_claim()) is None:
            now[0] += times.poll_s

        with claim:
            assert now[0] > 300.0 + 0.9 * times.silence_s - 5 * times.poll_s
            assert not claim.inherits
