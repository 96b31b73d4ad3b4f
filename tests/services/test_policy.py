"""Histories of events, and what the supervisor decides after them: no process, no clock."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from morpheus_boot.errors import Exit, NotSetUp, ServiceFailed
from morpheus_boot.services.policy import (
    Event,
    Exited,
    Hold,
    RestartPolicy,
    Run,
    Signalled,
    Stage,
    StoryEnded,
)
from morpheus_boot.services.process import ServiceSpec

TERM = Signalled(signal.SIGTERM)
INT = Signalled(signal.SIGINT)
CHILD = Signalled(signal.SIGCHLD)
TOLD = StoryEnded(None)
FULL = NotSetUp("volume", "it is full of eels", "drain it")
FAILED = StoryEnded(FULL)
DIED = Exited("comfyui", 3, lines=("a", "b"))
FILES_DIED = Exited("files", 1)
HOLD = Hold(900, ServiceSpec("files", ("files",), {}, Path("/"), 8000))
ALL = ("files", "comfyui", "queue")


def run(*history: tuple[float, Event], hold: Hold | None = None) -> Run:
    """The run after ``history``, each event with the second at which it comes, where one death is too many."""
    now = Run(4, RestartPolicy(most=1), hold)
    for second, event in history:
        now = now.at(second).after(event, second)
    return now


def died(lived_s: float = 0.0, *, code: int = 1, says: str = "") -> Exited:
    return Exited("comfyui", code, tuple(filter(None, (says,))), lived_s)


def run_of_deaths(*deaths: Exited) -> Run:
    """The run after ``deaths``, a minute apart, of services that are started again."""
    now = Run(4, RestartPolicy(most=5, alike=3, well_after_s=60))
    for number, death in enumerate(deaths):
        now = now.started(death.service).after(death, number * 60.0)
    return now


def test_a_signal_stops_everything_and_kills_one_grace_after_the_request() -> None:
    stopped = run((1, TOLD), (100, TERM))

    assert (stopped.stage, stopped.until) == (Stage.STOPPING, 104)
    assert (stopped.signum, stopped.error) == (signal.SIGTERM, None)
    assert not stopped.keeps("comfyui")


def test_what_happens_while_stopping_changes_nothing_but_a_second_sigint_which_kills_at_once() -> (
    None
):
    first = run((100, TERM))

    assert run((100, TERM), (101, TERM), (102, FAILED), (103, DIED), (103, TOLD)) == first
    assert run((100, INT), (101, INT)).until == 101
    assert run((100, INT), (101, TERM)).until == 104
    assert run((100, TERM), (101, INT)).until == 104


def test_a_story_that_ends_leaves_its_services_up_and_a_child_signal_decides_nothing() -> None:
    up = run((1, TOLD))

    assert (up.stage, up.is_over, up.keeps("comfyui")) == (Stage.UP, True, True)
    assert run((1, CHILD)) == run()


def test_a_storys_error_without_a_hold_stops_everything() -> None:
    failed = run((10, FAILED))

    assert (failed.stage, failed.until, failed.error) == (Stage.STOPPING, 14, FULL)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (3, "comfyui: it ended by itself (exit code 3); its last lines: a | b; "),
        (0, "exit code 0"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (-signal.SIGKILL, "look whether its memory ran out"),
        (-40, "killed by signal 40"),
    ],
)
def test_a_service_that_ends_by_itself_is_named_with_how_and_its_last_lines(
    code: int, text: str
) -> None:
    error = run((10, Exited("comfyui", code, lines=("a", "b")))).error

    assert isinstance(error, ServiceFailed)
    assert error.exit_code is Exit.UNAVAILABLE
    assert text in str(error)


def test_a_host_without_a_driver_is_the_cause_and_not_the_traceback_that_says_so() -> None:
    said = (
        "    torch._C._cuda_init()",
        "RuntimeError: Found no NVIDIA driver on your system. Please",
    )

    error = run((10, Exited("comfyui", 1, lines=(*said, "it has ended")))).error

    assert "no NVIDIA driver on this host (exit code 1); take a host with a GPU" in str(error)


def test_a_hold_keeps_its_service_for_its_time_and_then_stops_it() -> None:
    held = run((10, FAILED), hold=HOLD)

    assert (held.keeps("files"), held.keeps("comfyui"), held.is_over) == (True, False, False)
    assert held.at(909.9) == held
    ended = held.at(910)
    assert (ended.stage, ended.until, ended.error) == (Stage.STOPPING, 914, FULL)


@pytest.mark.parametrize("end", [TERM, INT, FILES_DIED])
def test_a_hold_ends_with_the_first_error_on_a_signal_and_when_its_service_is_gone(
    end: Event,
) -> None:
    ended = run((10, FAILED), (20, end), hold=HOLD)

    assert (ended.stage, ended.until, ended.error) == (Stage.STOPPING, 24, FULL)


def test_in_a_hold_the_end_of_others_and_of_the_story_changes_nothing() -> None:
    held = run((10, FAILED), hold=HOLD)

    assert run((10, FAILED), (11, DIED), (12, TOLD), hold=HOLD) == held


def test_a_signal_before_any_failure_holds_nothing() -> None:
    stopped = run((10, TERM), (11, FAILED), hold=HOLD)

    assert (stopped.stage, stopped.error) == (Stage.STOPPING, None)


@pytest.mark.parametrize(
    ("now", "services", "leaving"),
    [
        # What was started last is stopped first, and the next when it is gone,
        (100, ALL, ("queue",)),
        (100.1, ("files", "comfyui"), ("comfyui",)),
        (100.2, ("files",), ("files",)),
        (100.3, (), ()),
        # or after a quarter of the grace.
        (100.9, ALL, ("queue",)),
        (101, ALL, ("comfyui", "queue")),
        (102, ALL, ALL),
    ],
)
def test_services_leave_one_after_the_other(
    now: float, services: Sequence[str], leaving: Sequence[str]
) -> None:
    assert run((100, TERM)).leaving(services, now) == leaving


def test_a_second_sigint_holds_up_nothing_and_a_hold_stops_the_others_in_order_too() -> None:
    assert run((100, INT), (100.1, INT)).leaving(ALL, 100.1) == ALL
    held = run((10, FAILED), hold=HOLD)
    assert held.leaving(ALL, 10) == ("queue",)
    assert held.leaving(("files", "comfyui"), 10.1) == ("comfyui",)
    assert held.leaving(("files",), 10.2) == ()
    assert run().leaving(("files", "comfyui"), 10) == ()


def test_each_death_doubles_the_backoff() -> None:
    waits = [run_of_deaths(*[died()] * n).due["comfyui"] - (n - 1) * 60 for n in range(1, 5)]

    assert waits == [0.5, 1, 2, 4]


USAGE = died(code=2, says="main.py: error: unrecognized arguments: --nonsense")


@pytest.mark.parametrize(
    ("deaths", "stage"),
    [
        ([died()] * 4, Stage.UP),
        ([died()] * 5, Stage.STOPPING),
        # however long each start takes before it dies;
        ([died(59)] * 4, Stage.UP),
        ([died(59)] * 5, Stage.STOPPING),
        # a minute of life forgives the deaths before it;
        ([died(61)] * 9, Stage.UP),
        ([*[died()] * 4, died(61), *[died()] * 4], Stage.UP),
        ([*[died()] * 4, died(61), *[died()] * 5], Stage.STOPPING),
        # three that say the same are enough,
        ([USAGE] * 2, Stage.UP),
        ([USAGE] * 3, Stage.STOPPING),
        ([USAGE, died(says="another"), USAGE, USAGE], Stage.UP),
        # but a signal's have no last words of their own.
        ([died(code=-9, says="got prompt")] * 4, Stage.UP),
    ],
)
def test_a_service_that_dies_too_often_is_given_up(deaths: list[Exited], stage: Stage) -> None:
    assert run_of_deaths(*deaths).stage is stage


def test_one_services_deaths_do_not_count_for_the_other() -> None:
    after = run_of_deaths(*[died()] * 4, FILES_DIED)

    assert after.started("comfyui").due == {"files": 240.5}


def test_what_is_not_wanted_any_more_is_not_started_again() -> None:
    assert run_of_deaths(died()).after(TERM, 0.1).due == {}
