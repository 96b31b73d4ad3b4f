"""Histories of events, and what the supervisor decides after them: no process, no clock."""

import signal
from pathlib import Path

import pytest

from morpheus_boot.errors import Exit, NotSetUp, ServiceFailed
from morpheus_boot.services.course import Course, Hold, Stage
from morpheus_boot.services.events import Event, Exited, Signalled, StoryEnded
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.services.restarts import Convalescence, Restarts

TERM = Signalled(signal.SIGTERM)
INT = Signalled(signal.SIGINT)
CHILD = Signalled(signal.SIGCHLD)
TOLD = StoryEnded(None)
FULL = NotSetUp("volume", "it is full of eels", "drain it")
FAILED = StoryEnded(FULL)
DIED = Exited("comfyui", 3, lines=("a", "b"))
FILES_DIED = Exited("files", 1)
HOLD = Hold(900, ServiceSpec("files", ("files",), {}, Path("/"), 8000))


def course(*history: tuple[float, Event], hold: Hold | None = None) -> Course:
    """The course after ``history``, each event with the second at which it comes, where one death is too many."""
    now = Course(4, Convalescence(Restarts(most=1)), hold)
    for second, event in history:
        now = now.at(second).after(event, second)
    return now


def test_a_signal_stops_everything_and_kills_one_grace_after_the_request() -> None:
    stopped = course((1, TOLD), (100, TERM))

    assert stopped.stage is Stage.STOPPING
    assert stopped.until == 104
    assert stopped.signum == signal.SIGTERM
    assert stopped.error is None
    assert not stopped.keeps("comfyui")


def test_what_happens_while_stopping_changes_nothing() -> None:
    first = course((100, TERM))

    assert course((100, TERM), (101, TERM), (102, FAILED), (103, DIED), (103, TOLD)) == first


def test_only_a_second_sigint_kills_at_once() -> None:
    assert course((100, INT), (101, INT)).until == 101
    assert course((100, INT), (101, TERM)).until == 104
    assert course((100, TERM), (101, INT)).until == 104


def test_a_child_signal_decides_nothing() -> None:
    assert course((1, CHILD)) == course()


def test_a_story_that_ends_leaves_its_services_up() -> None:
    up = course((1, TOLD))

    assert up.stage is Stage.UP
    assert up.keeps("comfyui")
    assert up.is_over


def test_a_storys_error_without_a_hold_stops_everything() -> None:
    failed = course((10, FAILED))

    assert (failed.stage, failed.until, failed.error) == (Stage.STOPPING, 14, FULL)


def test_a_service_that_ends_by_itself_is_named_with_its_code_and_its_last_lines() -> None:
    error = course((10, DIED)).error

    assert isinstance(error, ServiceFailed)
    assert error.exit_code is Exit.UNAVAILABLE
    assert str(error).startswith(
        "comfyui: it ended by itself (exit code 3); its last lines: a | b; "
    )


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit code 0"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (-signal.SIGKILL, "look whether its memory ran out"),
        (-40, "killed by signal 40"),
    ],
)
def test_every_way_to_end_has_its_words(code: int, text: str) -> None:
    assert text in str(course((1, Exited("comfyui", code))).error)


def test_a_hold_keeps_its_service_for_its_time_and_then_stops_it() -> None:
    held = course((10, FAILED), hold=HOLD)

    assert held.keeps("files")
    assert not held.keeps("comfyui")
    assert not held.is_over
    assert held.at(909.9) == held
    assert held.at(910) == course((10, FAILED), (910, CHILD), hold=HOLD)
    assert (held.at(910).stage, held.at(910).until) == (Stage.STOPPING, 914)
    assert held.at(910).error is FULL


@pytest.mark.parametrize("end", [TERM, INT, FILES_DIED])
def test_a_hold_ends_with_the_first_error_on_a_signal_and_when_its_service_is_gone(
    end: Event,
) -> None:
    ended = course((10, FAILED), (20, end), hold=HOLD)

    assert (ended.stage, ended.until, ended.error) == (Stage.STOPPING, 24, FULL)


def test_in_a_hold_the_end_of_others_and_of_the_story_changes_nothing() -> None:
    held = course((10, FAILED), hold=HOLD)

    assert course((10, FAILED), (11, DIED), (12, TOLD), hold=HOLD) == held


def test_a_signal_before_any_failure_holds_nothing() -> None:
    stopped = course((10, TERM), (11, FAILED), hold=HOLD)

    assert (stopped.stage, stopped.error) == (Stage.STOPPING, None)


def test_what_was_started_last_is_stopped_first_and_the_next_when_it_is_gone() -> None:
    stopped = course((100, TERM))

    assert stopped.leaving(("files", "comfyui", "queue"), 100) == ("queue",)
    assert stopped.leaving(("files", "comfyui"), 100.1) == ("comfyui",)
    assert stopped.leaving(("files",), 100.2) == ("files",)
    assert stopped.leaving((), 100.3) == ()


def test_one_that_does_not_go_holds_up_the_others_for_a_quarter_of_the_grace() -> None:
    stopped = course((100, TERM))

    assert stopped.leaving(("files", "comfyui", "queue"), 100.9) == ("queue",)
    assert stopped.leaving(("files", "comfyui", "queue"), 101) == ("comfyui", "queue")
    assert stopped.leaving(("files", "comfyui", "queue"), 102) == ("files", "comfyui", "queue")


def test_a_second_sigint_holds_up_nothing() -> None:
    stopped = course((100, INT), (100.1, INT))

    assert stopped.leaving(("files", "comfyui", "queue"), 100.1) == ("files", "comfyui", "queue")


def test_a_hold_stops_the_others_in_order_too() -> None:
    held = course((10, FAILED), hold=HOLD)

    assert held.leaving(("files", "comfyui", "queue"), 10) == ("queue",)
    assert held.leaving(("files", "comfyui"), 10.1) == ("comfyui",)
    assert held.leaving(("files",), 10.2) == ()
    assert course().leaving(("files", "comfyui"), 10) == ()
