"""Trying again: ever longer waits, until a deadline, and none after a stop. No test waits."""

import pytest

from morpheus_boot.work.backoff import Backoff, try_again
from morpheus_boot.work.stopping import Stopped


class Time:
    """A clock that a pause moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.now += seconds
        return False


@pytest.mark.parametrize(
    ("backoff", "waits_s"),
    [
        (Backoff(1, 10, jitter=0), [1, 2, 4, 8, 10, 10]),
        (Backoff(2, 2, jitter=0), [2, 2, 2]),
    ],
)
def test_each_wait_is_twice_the_one_before_up_to_the_longest(
    backoff: Backoff, waits_s: list[float]
) -> None:
    assert [backoff.wait_s(nth) for nth in range(len(waits_s))] == waits_s
    assert backoff.wait_s(10_000) == backoff.most_s


def test_a_share_of_each_wait_is_left_to_chance() -> None:
    assert Backoff(8, 8, jitter=0.5).wait_s(0, chance=lambda: 1.0) == 4
    assert Backoff(8, 8, jitter=0.5).wait_s(0, chance=lambda: 0.0) == 8


def test_what_fails_for_a_while_is_tried_until_it_succeeds() -> None:
    time, failures = Time(), [OSError("no"), OSError("no")]

    def attempt() -> str:
        if failures:
            raise failures.pop()
        return "yes"

    backoff = Backoff(1, 8, jitter=0)
    assert try_again(attempt, OSError, backoff, pause=time.pause, clock=lambda: time.now) == "yes"
    assert time.pauses == [1, 2]


def test_what_never_succeeds_fails_as_it_did_last_within_the_deadline() -> None:
    time, serial = Time(), iter(range(100))

    def attempt() -> None:
        raise OSError(f"failure {next(serial)}")

    backoff = Backoff(1, 4, deadline_s=10, jitter=0)
    with pytest.raises(OSError, match="failure 3"):
        try_again(attempt, OSError, backoff, pause=time.pause, clock=lambda: time.now)
    assert time.pauses == [1, 2, 4]


def test_a_failure_of_another_kind_is_final() -> None:
    with pytest.raises(ZeroDivisionError):
        try_again(lambda: 1 // 0, OSError, Backoff(), pause=lambda _: pytest.fail("a wait"))


def test_a_stop_ends_the_wait() -> None:
    def attempt() -> None:
        raise OSError

    with pytest.raises(Stopped):
        try_again(attempt, OSError, Backoff(), pause=lambda _: True)
