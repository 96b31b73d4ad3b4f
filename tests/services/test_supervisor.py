"""The supervisor with real services: what the story starts, what ends it, and what comes out."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from morpheus_boot.errors import NotSetUp, ServiceFailed
from morpheus_boot.report.state import ServiceStage, ServiceState
from morpheus_boot.services.policy import RestartPolicy
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.services.supervisor import Supervisor
from morpheus_boot.work.backoff import Backoff
from morpheus_boot.work.stopping import Stopped
from tests.services.watched import Watched, child, program, runs, signal_this_thread, signal_us
from tests.wait import wait_until

SOON = Backoff(first_s=0.01, jitter=0)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_every_service_in_order(signum: signal.Signals) -> None:
    watched = Watched()
    pids: list[int] = []

    def story() -> None:
        pids.extend(watched.start(name) for name in ("one", "two"))
        signal_us(signum)

    assert watched.supervisor.run(story) == signum
    assert watched.supervisor.stopping.is_set()
    assert watched.said("one") == watched.said("two") == ["ready", "SIGTERM"]
    assert not any(map(runs, pids))
    assert watched.states[0] == ServiceState("one", ServiceStage.RUNNING, 1, pids[0])
    assert watched.states[-1].detail == "exit code 0"
    assert watched.stages("one") == [ServiceStage.RUNNING, ServiceStage.ENDED]


@pytest.mark.parametrize("send", [signal_us, signal_this_thread])
def test_a_signal_is_answered_while_the_story_hangs_whichever_thread_gets_it(
    send: Callable[[signal.Signals], None],
) -> None:
    watched = Watched()

    def story() -> None:
        watched.start("one")
        send(signal.SIGTERM)
        threading.Event().wait()

    assert watched.supervisor.run(story) == signal.SIGTERM


def test_a_signal_before_anything_has_started_starts_nothing() -> None:
    watched = Watched()
    refused = threading.Event()

    def story() -> None:
        signal_us(signal.SIGTERM)
        watched.supervisor.stopping.wait()
        try:
            watched.supervisor.start(child("one"))
        except Stopped:
            refused.set()

    assert watched.supervisor.run(story) == signal.SIGTERM
    assert refused.wait(10)
    assert watched.states == []


def test_a_service_asked_for_just_after_a_signal_is_not_started() -> None:
    watched = Watched()
    refused = threading.Event()

    def ask() -> None:
        try:
            watched.supervisor.start(child("late"))
        except Stopped:
            refused.set()

    def signal_and_ask() -> None:
        """In the loop itself, which so sees the request in the same turn as the signal."""
        signal_us(signal.SIGTERM)
        threading.Thread(target=ask, daemon=True).start()
        assert not refused.wait(0.1)

    watched.on_started["one"] = signal_and_ask

    assert watched.supervisor.run(lambda: watched.supervisor.start(child("one"))) == signal.SIGTERM
    assert refused.wait(10)
    assert watched.stages("late") == []


def test_the_storys_error_stops_the_services_and_comes_out() -> None:
    watched = Watched()
    full = NotSetUp("volume", "it is full of eels", "drain it")
    stages_at_failure: list[ServiceStage] = []

    def story() -> None:
        watched.start("one")
        raise full

    with pytest.raises(NotSetUp) as raised:
        watched.supervisor.run(
            story, on_failure=lambda _error: stages_at_failure.extend(watched.stages("one"))
        )

    assert raised.value is full
    assert stages_at_failure == [ServiceStage.RUNNING]
    assert watched.stages("one") == [ServiceStage.RUNNING, ServiceStage.ENDED]
    assert watched.said("one") == ["ready", "SIGTERM"]


def test_a_service_that_ends_by_itself_ends_the_boot_with_its_last_words() -> None:
    watched = Watched()
    failures: list[BaseException] = []

    def story() -> None:
        watched.start("one")
        watched.supervisor.start(child("two", "exit=3"))
        watched.supervisor.stopping.wait()

    with pytest.raises(ServiceFailed) as raised:
        watched.supervisor.run(story, on_failure=failures.append)

    assert failures == [raised.value]
    assert "two: it ended by itself (exit code 3); " in str(raised.value)
    assert "its last lines: ready | one thing went wrong | and then another; " in str(raised.value)
    assert watched.said("one") == ["ready", "SIGTERM"]
    assert watched.supervisor.last_lines("two")[-1] == "and then another"


def test_a_story_that_starts_nothing_ends_the_run_with_it() -> None:
    watched = Watched()

    assert watched.supervisor.run(lambda: None) is None
    assert not watched.supervisor.stopping.is_set()


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        (ServiceSpec("one", ("/bin/true",), {}, Path("/nowhere"), 1), "/nowhere"),
        (ServiceSpec("one", ("/nowhere/python",), {}, Path("/"), 1), "/nowhere/python"),
    ],
)
def test_a_service_that_cannot_be_started_names_the_path(spec: ServiceSpec, cause: str) -> None:
    watched = Watched()

    def story() -> None:
        watched.supervisor.start(spec)
        watched.supervisor.stopping.wait()

    with pytest.raises(ServiceFailed, match=cause):
        watched.supervisor.run(story)


@pytest.fixture
def _our_own_input() -> Iterator[None]:
    """Something stands in our standard input."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"ours")
    os.close(write_fd)
    before = os.dup(0)
    os.dup2(read_fd, 0)
    os.close(read_fd)
    yield
    os.dup2(before, 0)
    os.close(before)


@pytest.mark.usefixtures("_our_own_input")
def test_a_service_gets_its_environment_and_folder_and_nothing_of_ours(tmp_path: Path) -> None:
    watched = Watched()
    look = (
        "import os, signal, sys; print(dict(os.environ), os.getcwd(), [sys.stdin.read()]);"
        "print(sorted(os.listdir('/proc/self/fd'))); print(os.getsid(0) == os.getpid());"
        "signal.pause()"
    )

    def story() -> None:
        with (tmp_path / "open").open("w"):
            watched.supervisor.start(
                program("one", "-c", look, env={"LC_ALL": "C", "A": "b"}, cwd=tmp_path)
            )
            wait_until(lambda: len(watched.lines) == 3)
        signal_us(signal.SIGTERM)

    watched.supervisor.run(story)

    assert watched.said("one") == [
        f"{{'LC_ALL': 'C', 'A': 'b'}} {tmp_path} ['']",
        "['0', '1', '2', '3']",  # the last one is the listing's own
        "True",
    ]


def test_its_environment_is_not_shown() -> None:
    assert "hush" not in repr(program("one", env={"TOKEN": "hush"}))


def test_a_service_that_floods_us_does_not_delay_a_signal() -> None:
    watched = Watched(grace_s=2)

    def story() -> None:
        watched.supervisor.start(program("one", "-c", "while True: print('x' * 100)"))
        wait_until(lambda: len(watched.lines) > 1000)
        signal_us(signal.SIGTERM)

    assert watched.supervisor.run(story) == signal.SIGTERM
    assert watched.states[-1].detail == "killed by SIGTERM"


def test_a_killed_service_comes_back_and_the_other_never_notices(tmp_path: Path) -> None:
    running: dict[str, list[int]] = {"one": [], "two": []}

    def service(name: str) -> ServiceSpec:
        code = "import time; print('up', flush=True); time.sleep(60)"
        return ServiceSpec(name, (sys.executable, "-c", code), dict(os.environ), tmp_path, 1)

    def on_line(name: str, _line: str) -> None:
        running[name].append(1)
        if running == {"one": [1], "two": [1]}:
            os.kill(pids["one"], signal.SIGKILL)
        elif running["one"] == [1, 1]:
            os.kill(os.getpid(), signal.SIGTERM)

    pids: dict[str, int] = {}
    supervisor = Supervisor(
        on_line=on_line,
        on_service=lambda state: pids.update({state.name: state.pid or 0}),
        restarts=RestartPolicy(backoff=SOON),
    )

    def story() -> None:
        supervisor.start(service("one"))
        supervisor.start(service("two"))

    assert supervisor.run(story) == signal.SIGTERM
    assert running == {"one": [1, 1], "two": [1]}


def test_how_long_a_service_lived_is_measured_from_its_own_start() -> None:
    starts: list[str] = []

    def on_line(_service: str, line: str) -> None:
        starts.append(line)
        if starts.count("ready") == 3:
            signal_us(signal.SIGTERM)

    supervisor = Supervisor(
        on_line=on_line,
        on_service=lambda _state: None,
        restarts=RestartPolicy(most=2, well_after_s=1e-9, backoff=SOON),
    )

    assert supervisor.run(lambda: supervisor.start(child("one", "exit=1"))) == signal.SIGTERM
