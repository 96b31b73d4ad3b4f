"""TERM to the group, grace, KILL: whatever a service does, nothing is left and nothing waits for ever."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from morpheus_boot.report.state import ServiceStage, ServiceState
from tests.services.watched import Watched, child, runs, signal_us
from tests.testbed.hung_volume import hung_volume
from tests.wait import wait_until


@pytest.fixture
def left_behind() -> Iterator[list[int]]:
    """Processes that a test leaves behind on purpose."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def supervise() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a supervisor in a process of its own; what is left of it at the end is killed."""
    with ExitStack() as stack:

        def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
            command = [sys.executable, "-c", program, *arguments]
            folder = Path(__file__).parents[2]
            supervisor = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
            )
            stack.callback(supervisor.kill)
            return supervisor

        yield start


def first_line(supervisor: "subprocess.Popen[str]") -> str:
    assert supervisor.stdout is not None
    return supervisor.stdout.readline().strip()


def test_the_grace_of_all_begins_with_the_stop_request() -> None:
    watched = Watched(grace_s=0.5)
    times: list[float] = []
    for name in ("one", "two"):
        watched.on_ended[name] = lambda: times.append(time.monotonic())

    def story() -> None:
        for name in ("one", "two"):
            watched.start(name, "ignore-term")
        watched.start("polite")
        times.append(time.monotonic())
        signal_us(signal.SIGTERM)

    watched.supervisor.run(story)

    requested_at, first_at, second_at = times
    assert first_at - requested_at >= 0.5
    assert second_at - first_at < 0.4
    assert watched.said("two") == ["ready", "SIGTERM"]
    details = {state.name: state.detail for state in watched.states}
    assert details == {
        "one": "killed by SIGKILL",
        "two": "killed by SIGKILL",
        "polite": "exit code 0",
    }


@pytest.mark.parametrize(("signum", "grace_s"), [(signal.SIGTERM, 0.5), (signal.SIGINT, 1000)])
def test_a_second_sigterm_breaks_no_stop_and_a_second_sigint_does_not_wait(
    signum: signal.Signals, grace_s: float
) -> None:
    watched = Watched(grace_s)

    def story() -> None:
        watched.start("one", "ignore-term")
        signal_us(signum)
        watched.wait_for("one", "SIGTERM")
        signal_us(signum)

    assert watched.supervisor.run(story) == signum
    assert watched.said("one") == ["ready", "SIGTERM"]
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


# subprocess complains of a child that nobody waits for, which is what is left behind here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_service_that_hangs_in_the_kernel_is_left_behind_and_named(tmp_path: Path) -> None:
    last = hold_a_service_in_the_kernel(tmp_path)

    assert last.pid is not None
    assert f"pid {last.pid} does not end, not even by SIGKILL" in last.detail
    wait_until(lambda: not runs(last.pid or 0))
    wait_until(lambda: "output of one" not in {t.name for t in threading.enumerate()})
    gc.collect()  # subprocess complains when the process is forgotten: here, not in a later test


def hold_a_service_in_the_kernel(folder: Path) -> ServiceState:
    """The last state of a service that looks at a volume which hangs, once its supervisor was stopped."""
    watched = Watched(grace_s=0.2)

    def story() -> None:
        watched.supervisor.start(child("one", f"look={folder}/model"))
        watched.wait_for("one", "looking")
        wait_until(volume.holds_someone)
        signal_us(signal.SIGTERM)

    with hung_volume(folder) as volume:
        assert watched.supervisor.run(story) == signal.SIGTERM
        last = watched.states[-1]
        assert runs(last.pid or 0)
    return last


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_story_that_hangs_in_the_kernel_delays_no_signal(
    supervise: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    program = (
        "import os, sys\n"
        "from tests.services.watched import Watched\n"
        "watched = Watched()\n"
        "def story():\n"
        "    watched.start('one')\n"
        "    os.stat(sys.argv[1])\n"
        "print(watched.supervisor.run(story), flush=True)\n"
    )
    with hung_volume(tmp_path) as volume:
        supervisor = supervise(program, f"{tmp_path}/model")
        wait_until(volume.holds_someone)

        supervisor.terminate()

        assert first_line(supervisor) == str(int(signal.SIGTERM))


def test_services_die_with_a_supervisor_that_is_killed(
    supervise: Callable[..., "subprocess.Popen[str]"],
) -> None:
    program = (
        "from tests.services.watched import Watched\n"
        "watched = Watched()\n"
        "watched.supervisor.run(lambda: print(watched.start('one'), flush=True))\n"
    )
    supervisor = supervise(program)
    pid = int(first_line(supervisor))
    assert runs(pid)

    supervisor.kill()

    wait_until(lambda: not runs(pid))


def test_when_the_supervisor_itself_fails_its_services_go() -> None:
    class Broken(Watched):
        def note(self, state: ServiceState) -> None:
            self.states.append(state)
            if state.stage is ServiceStage.ENDED:
                raise RuntimeError("a bug")

    watched = Broken()

    def story() -> None:
        watched.start("one", "ignore-term")
        os.kill(watched.start("two"), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="a bug"):
        watched.supervisor.run(story)

    assert not any(runs(state.pid or 0) for state in watched.states)
