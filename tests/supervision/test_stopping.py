"""TERM to the group, grace, KILL: whatever a service does, nothing is left and nothing waits for ever."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.state import ServiceStage, ServiceState
from tests.supervision.hung_volume import hung_volume
from tests.supervision.watched import Watched, child, runs, signal_us
from tests.wait import wait_until


@pytest.fixture
def left_behind() -> Iterator[list[int]]:
    """Processes that a test leaves behind on purpose."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_the_grace_of_all_begins_with_the_stop_request() -> None:
    watched = Watched(grace_s=0.5)
    requested_at: list[float] = []

    def story() -> None:
        for name in ("one", "two", "three"):
            watched.start(name, "ignore-term")
        watched.start("polite")
        requested_at.append(time.monotonic())
        signal_us(signal.SIGTERM)

    watched.supervisor.run(story)

    assert 0.5 <= time.monotonic() - requested_at[0] < 1.2
    assert watched.said("three") == ["ready", "SIGTERM"]
    details = {state.name: state.detail for state in watched.states}
    assert details["polite"] == "exit code 0"
    assert details["one"] == details["two"] == details["three"] == "killed by SIGKILL"


def test_a_second_sigterm_does_not_break_a_stop() -> None:
    watched = Watched(grace_s=0.5)

    def story() -> None:
        watched.start("one", "ignore-term")
        signal_us(signal.SIGTERM)
        watched.wait_for("one", "SIGTERM")
        signal_us(signal.SIGTERM)
        signal_us(signal.SIGTERM)

    assert watched.supervisor.run(story) == signal.SIGTERM
    assert watched.said("one") == ["ready", "SIGTERM"]
    assert watched.states[-1].detail == "killed by SIGKILL"


def test_a_second_sigint_does_not_wait() -> None:
    watched = Watched(grace_s=1000)

    def story() -> None:
        watched.start("one", "ignore-term")
        signal_us(signal.SIGINT)
        watched.wait_for("one", "SIGTERM")
        signal_us(signal.SIGINT)

    assert watched.supervisor.run(story) == signal.SIGINT
    assert watched.states[-1].detail == "killed by SIGKILL"


def test_a_grandchild_goes_too_though_it_ignores_sigterm_and_its_parent_went_in_order() -> None:
    watched = Watched(grace_s=0.3)

    def story() -> None:
        watched.start("one", "grandchild")
        assert runs(watched.grandchild("one"))
        signal_us(signal.SIGTERM)

    watched.supervisor.run(story)

    assert not runs(watched.grandchild("one"))
    assert watched.states[-1].detail == "exit code 0"


def test_what_a_dead_service_leaves_in_its_group_is_gone_before_it_starts_again() -> None:
    watched = Watched(grace_s=0.3)

    def story() -> None:
        watched.start("one", "grandchild")
        watched.supervisor.stop("one")
        assert not runs(watched.grandchild("one"))

    watched.supervisor.run(story)


def test_a_grandchild_elsewhere_that_holds_the_output_open_hangs_nothing(
    left_behind: list[int],
) -> None:
    watched = Watched(grace_s=1000)

    def story() -> None:
        watched.start("one", "escaped")
        left_behind.append(watched.grandchild("one"))
        signal_us(signal.SIGTERM)

    watched.supervisor.run(story)

    assert watched.said("one")[-1] == "SIGTERM"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_service_that_hangs_in_the_kernel_is_left_behind_and_named(tmp_path: Path) -> None:
    watched = Watched(grace_s=0.2)
    refused: list[WaitedTooLong] = []

    def story() -> None:
        watched.supervisor.start(child("one", f"open={tmp_path}/model"))
        watched.wait_for("one", "opening")
        wait_until(volume.holds_someone)
        with pytest.raises(WaitedTooLong) as raised:
            watched.supervisor.stop("one")
        refused.append(raised.value)

    with hung_volume(tmp_path) as volume:
        watched.supervisor.run(story)
        [pid] = {state.pid for state in watched.states}
        assert pid is not None
        assert runs(pid)

    wait_until(lambda: not runs(pid))
    assert f"pid {pid} does not end, not even by SIGKILL" in str(refused[0])
    assert watched.states[-1].detail == refused[0].cause


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_story_that_hangs_in_the_kernel_delays_no_signal(tmp_path: Path) -> None:
    watched = Watched()

    def story() -> None:
        watched.start("one")
        (tmp_path / "model").stat()

    with hung_volume(tmp_path) as volume:
        volume.call_once_held(lambda: signal_us(signal.SIGTERM))
        assert watched.supervisor.run(story) == signal.SIGTERM


def test_services_die_with_a_supervisor_that_is_killed() -> None:
    program = (
        "from tests.supervision.watched import Watched\n"
        "watched = Watched()\n"
        "watched.supervisor.run(lambda: print(watched.start('one'), flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert runs(pid)

        supervisor.kill()

    wait_until(lambda: not runs(pid))


def test_when_the_supervisor_itself_fails_its_services_go() -> None:
    class FullDisk(Watched):
        def note(self, state: ServiceState) -> None:
            self.states.append(state)
            if state.stage is ServiceStage.ENDED:
                raise OSError(28, "No space left on device")

    watched = FullDisk()

    def story() -> None:
        watched.start("one", "ignore-term")
        os.kill(watched.start("two"), signal.SIGKILL)

    with pytest.raises(OSError, match="No space left"):
        watched.supervisor.run(story)

    pid = watched.states[0].pid
    assert pid is not None
    wait_until(lambda: not runs(pid))
    os.waitpid(pid, 0)
    os.waitpid(watched.states[1].pid or 0, 0)
