"""After giving up, one service stays up so that the cause can be seen."""

import signal
import threading
import time
from pathlib import Path

import pytest

from morpheus_boot.errors import NotSetUp, ServiceFailed
from morpheus_boot.report.state import ServiceStage
from morpheus_boot.services.policy import Hold
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.work.stopping import Stopped
from tests.services.watched import Watched, child, runs, signal_us

FULL = NotSetUp("volume", "it is full of eels", "drain it")


def fail() -> None:
    raise FULL


def test_a_service_that_is_up_stays_up_while_the_others_are_stopped() -> None:
    watched = Watched()
    pids: dict[str, int] = {}

    def story() -> None:
        pids.update({name: watched.start(name) for name in ("files", "comfyui")})
        try:
            raise FULL
        finally:
            watched.on_ended["comfyui"] = lambda: signal_us(signal.SIGTERM)

    with pytest.raises(NotSetUp) as raised:
        watched.supervisor.run(story, hold=Hold(1000, child("files")))

    assert raised.value is FULL
    ended = [state.name for state in watched.states if state.stage is ServiceStage.ENDED]
    assert ended == ["comfyui", "files"]
    assert {state.pid for state in watched.states if state.name == "files"} == {pids["files"]}


def test_a_service_that_was_not_up_is_started_for_the_hold() -> None:
    watched = Watched()
    watched.on_line["files"] = lambda: signal_us(signal.SIGINT)

    with pytest.raises(NotSetUp):
        watched.supervisor.run(fail, hold=Hold(1000, child("files")))

    assert watched.said("files") == ["ready", "SIGTERM"]


def test_the_failure_is_told_and_then_a_hold_ends_by_itself_after_its_time() -> None:
    watched = Watched()
    up_at_failure: list[int] = []
    begin = time.monotonic()

    with pytest.raises(NotSetUp):
        watched.supervisor.run(
            fail,
            hold=Hold(0.4, child("files")),
            on_failure=lambda _error: up_at_failure.append(len(watched.states)),
        )

    assert 0.4 <= time.monotonic() - begin < 2
    assert up_at_failure == [0]
    assert watched.stages("files") == [ServiceStage.RUNNING, ServiceStage.ENDED]


def test_a_service_that_died_is_started_again_for_the_hold_once_its_remains_are_gone() -> None:
    watched = Watched(grace_s=0.2)

    def on_line() -> None:
        if watched.said("files").count("ready") == 2:
            signal_us(signal.SIGTERM)

    watched.on_line["files"] = on_line

    def story() -> None:
        watched.supervisor.start(child("files", "grandchild", "exit=5"))

    with pytest.raises(ServiceFailed, match="exit code 5"):
        watched.supervisor.run(story, hold=Hold(1000, child("files")))

    assert not runs(watched.grandchild("files"))
    assert watched.stages("files") == [ServiceStage.RUNNING, ServiceStage.ENDED] * 2


@pytest.mark.parametrize(
    "service",
    [child("files", "exit=6"), ServiceSpec("files", ("true",), {}, Path("/nowhere"), 1)],
    ids=["ends by itself", "can't be started"],
)
def test_a_hold_with_nothing_to_show_ends_at_once_with_the_first_error(
    service: ServiceSpec,
) -> None:
    with pytest.raises(NotSetUp) as raised:
        Watched().supervisor.run(fail, hold=Hold(1000, service))

    assert raised.value is FULL


def test_nothing_is_started_by_the_story_in_a_hold() -> None:
    watched = Watched()
    refused = threading.Event()

    def story() -> None:
        watched.supervisor.start(child("comfyui", "exit=7"))
        watched.supervisor.stopping.wait()
        try:
            watched.supervisor.start(child("another"))
        except Stopped:
            refused.set()
            signal_us(signal.SIGTERM)

    with pytest.raises(ServiceFailed, match="exit code 7"):
        watched.supervisor.run(story, hold=Hold(1000, child("files")))

    assert refused.wait(10)
    assert watched.stages("another") == []
