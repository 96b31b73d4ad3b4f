"""Workers that die, fall silent, come back or fight: each byte once where that can be, one right file always."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.report.state import ModelStage, ModelState
from tests.cache.scene import (
    NEVER_S,
    PATH,
    RIGHT,
    WEIGHTS,
    Scene,
    filling,
    finish,
    waiting,
)
from tests.cache.worker import MIB, model
from tests.testbed.content import read_all, safetensors, sha256
from tests.testbed.exchange import resource_of
from tests.testbed.faults import (
    Changed,
    Corrupt,
    Fault,
    Gate,
    NoEtag,
    ResetAt,
    Status,
    WeakEtag,
)
from tests.testbed.origin import Origin
from tests.wait import wait_until

OTHER: Final = safetensors(4 * MIB, seed=11)
DAY_S: Final = 86_400.0
SILENCE_S: Final = 0.5


@pytest.fixture
def scene(tmp_path: Path, origin: Origin) -> Scene:
    return Scene(tmp_path, origin, origin.serve("/a", WEIGHTS))


# A holder that dies


def test_a_killed_holder_is_replaced_at_once_and_only_the_rest_is_fetched(scene: Scene) -> None:
    part = scene.leave_half()
    inode, there, before = part.stat().st_ino, scene.journalled_bytes(), scene.fetched_bytes()

    finish(scene.process(silence_s=NEVER_S).start("worker-2"))

    scene.assert_right()
    assert there >= MIB
    assert scene.fetched_bytes() - before <= len(RIGHT) - there + 1
    assert scene.final.stat().st_ino == inode


def test_a_waiter_replaces_a_holder_that_is_killed_while_it_waits(scene: Scene) -> None:
    waiter = scene.worker("worker-2")
    with scene.held(scene.process()) as (process, _), filling(waiter, scene.wanted()):
        wait_until(lambda: waiting(waiter.states) != [])
        scene.origin.behave()
        process.kill()

    scene.assert_right()
    assert scene.fetched_bytes() < len(RIGHT) + MIB


def test_a_line_that_a_kill_cut_off_costs_no_more_than_itself(scene: Scene) -> None:
    with scene.held(scene.process(), MIB) as (process, _):
        process.kill()
    (journal,) = scene.layout.parts.glob("*.journal")
    with journal.open("ab") as file:
        file.write(b"[1048576,12")
    scene.origin.behave()
    with scene.held(scene.process(), 2 * MIB) as (process, _):
        wait_until(lambda: scene.journalled_bytes() > 2 * MIB)
        process.kill()
    scene.origin.behave()
    there, before = scene.journalled_bytes(), scene.fetched_bytes()

    scene.worker("worker-3").fill(scene.wanted())

    scene.assert_right()
    assert scene.fetched_bytes() - before <= len(RIGHT) - there + 1


def test_a_part_that_is_shorter_than_its_journal_says_is_not_continued(scene: Scene) -> None:
    os.truncate(scene.leave_half(), MIB // 2)

    scene.worker("worker-2").fill(scene.wanted())

    scene.assert_right()


@pytest.mark.parametrize("fault", [NoEtag(last_modified=False), WeakEtag()])
def test_a_part_of_a_version_without_a_validator_is_not_continued(
    scene: Scene, fault: Fault
) -> None:
    scene.origin.misbehave("/a", fault)
    scene.leave_half()
    scene.origin.misbehave("/a", fault)
    before = scene.fetched_bytes()

    scene.worker("worker-2").fill(scene.wanted())

    scene.assert_right()
    assert scene.fetched_bytes() - before >= len(RIGHT)


def test_a_part_without_a_validator_is_continued_where_the_digest_is_known(scene: Scene) -> None:
    scene.origin.misbehave("/a", NoEtag(last_modified=False))
    wanted = scene.wanted(sha256(WEIGHTS))
    scene.leave_half(wanted)
    scene.origin.misbehave("/a", NoEtag(last_modified=False))
    before = scene.fetched_bytes()

    scene.worker("worker-2").fill(wanted)

    scene.assert_right()
    assert scene.fetched_bytes() - before < len(RIGHT) - MIB


# An origin that changes


def test_the_part_of_an_origin_that_changed_is_dropped(scene: Scene) -> None:
    scene.leave_half()
    scene.origin.serve("/a", OTHER)

    scene.worker("worker-2").fill(scene.wanted())

    assert scene.final.read_bytes() == read_all(OTHER)
    assert list(scene.layout.parts.glob("*")) == []


def test_an_origin_that_changes_in_mid_download_and_then_stumbles_is_asked_again(
    scene: Scene,
) -> None:
    scene.origin.misbehave("/a", ResetAt(MIB), after=1, times=1)
    scene.origin.misbehave("/a", Changed(OTHER), after=2)
    scene.origin.misbehave("/a", Status(503), after=3, times=1)

    scene.worker("worker-1").fill(scene.wanted())

    assert scene.final.read_bytes() == read_all(OTHER)


def test_a_broken_connection_goes_on_where_the_digest_is_the_only_validator(scene: Scene) -> None:
    scene.origin.misbehave("/a", NoEtag(last_modified=False))
    scene.origin.misbehave("/a", ResetAt(3 * MIB), after=1, times=1)

    scene.worker("worker-1").fill(scene.wanted(sha256(WEIGHTS)))

    scene.assert_right()
    assert scene.fetched_bytes() < len(RIGHT) + MIB


def test_two_versions_are_never_mixed_where_nothing_tells_them_apart(scene: Scene) -> None:
    scene.origin.serve("/a", replace(resource_of(WEIGHTS), etag=None, last_modified_s=None))
    scene.origin.misbehave("/a", ResetAt(2 * MIB), after=1, times=1)
    scene.origin.misbehave("/a", Changed(OTHER), NoEtag(last_modified=False), after=2)

    scene.worker("worker-1").fill(scene.wanted())

    assert scene.final.read_bytes() == read_all(OTHER)


# Workers that fill together


def test_two_at_once_fetch_each_byte_once(scene: Scene) -> None:
    with (
        scene.held(scene.process()) as (first, gate),
        scene.process().running("worker-2") as second,
    ):
        assert second.stdout is not None
        assert any('"waiting"' in line for line in second.stdout)
        gate.open()
        finish(first)
        finish(second)

    scene.assert_right()
    # Each asks for one byte to learn the size.
    assert scene.fetched_bytes() <= len(RIGHT) + 2


def test_a_worker_that_finds_a_model_taken_goes_on_to_the_next(scene: Scene) -> None:
    paths = {f"loras/{name}.safetensors": f"/{name}" for name in ("one", "two", "three")}
    gates = {url: Gate(MIB) for url in paths.values()}
    for url, gate in gates.items():
        scene.origin.misbehave(url, gate)
    wanted = [model(path, scene.origin.serve(url, WEIGHTS)) for path, url in paths.items()]
    fill = scene.process(*wanted)

    with fill.running("worker-1") as first:
        gates["/one"].wait_reached()
        with fill.running("worker-2") as second:
            gates["/two"].wait_reached()
            assert scene.origin.ledger.running == 2
            for gate in gates.values():
                gate.open()
            finish(first)
            finish(second)

    for path, url in paths.items():
        assert scene.layout.model(path).read_bytes() == RIGHT
        assert scene.origin.count(url).body_bytes <= len(RIGHT) + 2


def test_a_waiter_says_who_fetches_and_how_far(scene: Scene) -> None:
    waiter = scene.worker("worker-2")
    with scene.held(scene.process()) as (process, gate), filling(waiter, scene.wanted()):
        said = wait_until(
            lambda: next((s for s in waiting(waiter.states) if s.done_bytes >= MIB), False)
        )
        gate.open()
        finish(process)

    assert isinstance(said, ModelState)
    assert said.detail == "worker-1 fetches it"
    assert said.done_bytes <= 2 * MIB
    assert said.size_bytes == len(RIGHT)
    assert waiter.states[-1].stage is ModelStage.PRESENT


def test_a_waiter_asks_its_origin_anew_when_its_turn_comes(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    waiter = scene.worker("worker-2")
    with scene.held(scene.process()) as (process, _), filling(waiter, scene.wanted()):
        wait_until(lambda: waiting(waiter.states) != [])
        scene.origin.behave()
        scene.origin.serve("/a", OTHER)
        process.kill()

    assert scene.final.read_bytes() == read_all(OTHER)
    assert "beginning anew" not in caplog.text


def test_a_wait_that_lasts_too_long_is_75_and_names_the_holder(scene: Scene) -> None:
    with scene.held(scene.process()):
        wait_until(scene.heartbeat.exists)
        with pytest.raises(WaitedTooLong) as caught:
            scene.worker("worker-2", deadline_s=0.3).fill(scene.wanted())

    assert caught.value.exit_code == 75
    assert PATH in str(caught.value)
    assert "worker-1" in str(caught.value)


# Holders that fall silent


@pytest.mark.parametrize("skew_s", [0.0, -DAY_S, DAY_S])
def test_a_silent_holder_is_taken_over_and_changes_nothing_when_it_comes_back(
    scene: Scene, skew_s: float
) -> None:
    with scene.held(scene.process()) as (silent, gate):
        silent.send_signal(signal.SIGSTOP)
        (part,) = scene.parts()
        inode, before = part.stat().st_ino, scene.origin.count("/a").body_bytes
        there = scene.journalled_bytes()
        os.utime(scene.heartbeat, (time.time() + skew_s,) * 2)
        gate.open()

        scene.worker("worker-2", silence_s=SILENCE_S).fill(scene.wanted())

        scene.assert_right()
        published = scene.final.stat()
        assert published.st_ino != inode
        silent.send_signal(signal.SIGCONT)
        finish(silent)

    scene.assert_right()
    after = scene.final.stat()
    assert (after.st_ino, after.st_mtime_ns) == (published.st_ino, published.st_mtime_ns)
    # The silent one's connection went on into its buffers, and it took the rest when it came back.
    assert scene.fetched_bytes() - before <= 2 * len(RIGHT) - there - 2 * MIB + 2


def test_a_silent_holder_that_comes_back_in_the_middle_of_the_takeover_waits_for_it(
    scene: Scene,
) -> None:
    with scene.held(scene.process()) as (silent, gate):
        silent.send_signal(signal.SIGSTOP)
        taker = scene.worker("worker-2", silence_s=SILENCE_S)
        second_gate = scene.gate(MIB, waits=True)
        with filling(taker, scene.wanted()):
            wait_until(scene.takeover_heartbeat.exists)
            second_gate.wait_reached()
            silent.send_signal(signal.SIGCONT)
            gate.open()
            assert silent.stdout is not None
            assert any('"waiting"' in line for line in silent.stdout)
            assert not scene.final.exists()
            second_gate.open()
        finish(silent)

    scene.assert_right()


def test_a_holder_whose_heartbeats_seem_to_be_of_yesterday_is_not_taken_over(scene: Scene) -> None:
    waiter = scene.worker("worker-2", silence_s=DAY_S / 2)
    with scene.held(scene.process()) as (process, gate), filling(waiter, scene.wanted()):
        (part,) = scene.parts()
        inode = part.stat().st_ino

        def has_looked_often() -> bool:
            os.utime(scene.heartbeat, (time.time() - DAY_S,) * 2)
            return len(waiting(waiter.states)) >= 20

        wait_until(has_looked_often)
        gate.open()
        finish(process)

    scene.assert_right()
    assert scene.final.stat().st_ino == inode


def test_a_holder_whose_heartbeat_is_gone_counts_as_silent(scene: Scene) -> None:
    taker = scene.worker("worker-2", silence_s=SILENCE_S)
    with scene.held(scene.process()) as (silent, gate), filling(taker, scene.wanted()):
        wait_until(lambda: waiting(taker.states) != [])
        silent.send_signal(signal.SIGSTOP)
        scene.heartbeat.unlink()
        gate.open()
        wait_until(scene.final.exists)

    scene.assert_right()


def test_a_takeover_that_falls_silent_too_is_75_and_names_both(scene: Scene) -> None:
    with scene.held(scene.process()) as (first, _):
        first.send_signal(signal.SIGSTOP)
        second_gate = scene.gate(0, waits=True)
        with scene.process(silence_s=SILENCE_S).running("worker-2") as second:
            second_gate.wait_reached()
            second.send_signal(signal.SIGSTOP)

            with pytest.raises(WaitedTooLong) as caught:
                scene.worker("worker-3", silence_s=SILENCE_S).fill(scene.wanted())

    assert caught.value.exit_code == 75
    assert "worker-1 and worker-2" in str(caught.value)
    assert "both fell silent" in str(caught.value)


def test_a_takeover_that_is_killed_is_followed_by_another(scene: Scene) -> None:
    with scene.held(scene.process()) as (first, _):
        first.send_signal(signal.SIGSTOP)
        second_gate = scene.gate(MIB, waits=True)
        with scene.process(silence_s=SILENCE_S).running("worker-2") as second:
            second_gate.wait_reached()
            wait_until(lambda: scene.journalled_bytes() > 2 * MIB)
            second.kill()
        # Whole chunks, of a MiB here, are copied; the size is asked for before the wait and after it.
        there = scene.journalled_bytes() // MIB * MIB
        before = scene.origin.count("/a").body_bytes

        scene.worker("worker-3", silence_s=SILENCE_S).fill(scene.wanted())

        assert scene.origin.count("/a").body_bytes - before <= len(RIGHT) - there + 2
    scene.assert_right()


# Two holders by force: where no lock works, the file is right all the same


def test_two_holders_by_force_end_with_one_right_file(scene: Scene) -> None:
    with scene.held(scene.process()) as (first, gate):
        scene.layout.lock(PATH).unlink()
        second_gate = scene.gate(MIB)
        with scene.process().running("worker-2") as second:
            second_gate.wait_reached()
            gate.open()
            second_gate.open()
            finish(first)
            finish(second)

    scene.assert_right()


def test_a_second_holder_by_force_never_writes_into_what_the_first_publishes(scene: Scene) -> None:
    wanted = scene.wanted(sha256(WEIGHTS))
    with scene.held(scene.process(wanted)) as (first, first_gate):
        (part,) = scene.parts()
        scene.layout.lock(PATH).unlink()
        second_gate = scene.gate(MIB // 2, Corrupt(at=MIB))
        with part.open("rb") as inode, scene.process(wanted).running("worker-2") as second:
            second_gate.wait_reached()
            first_gate.open()
            # At its next sync the first finds that its part was taken, and fetches no more.
            wait_until(lambda: scene.origin.ledger.running == 1)
            written = os.pread(inode.fileno(), len(RIGHT), 0)
            second_gate.open()
            finish(second)
            finish(first)
            assert os.pread(inode.fileno(), len(RIGHT), 0) == written

    scene.assert_right()
