"""The engine's decisions, each with a clock of its own: when to try again, and how fast it goes; sets of ranges."""

from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_boot.cache.options import TransferTimes
from morpheus_boot.cache.origins.http import retry_after_s
from morpheus_boot.cache.origins.origin import TransientFailure
from morpheus_boot.cache.transfer.progress import Meter, Retries
from morpheus_boot.volume.ranges import RangeSet
from morpheus_boot.work.backoff import Backoff

TIMES: Final = TransferTimes(
    retry=Backoff(first_s=1, most_s=5, deadline_s=60, jitter=0), progress_bytes=100
)


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_rate_and_time_left_are_those_of_the_last_seconds() -> None:
    clock = Clock()
    meter = Meter(10_000, clock)
    meter.read(0, retries=0, connections=1)
    clock.now_s += 100
    meter.read(1000, retries=0, connections=1)
    clock.now_s += 2

    reading = meter.read(5000, retries=3, connections=2)

    assert reading.rate_bytes_per_s == pytest.approx(2000)
    assert reading.left_s == pytest.approx(2.5)
    assert (reading.retries, reading.connections) == (3, 2)


@pytest.mark.parametrize(
    ("wished_s", "nth", "waits_s"),
    [(None, 0, 1), (None, 1, 2), (None, 9, 5), (33, 0, 33), (0, 3, 1), (3600, 0, None)],
)
def test_a_wish_of_the_origin_wins_but_for_no_pause_at_all_and_more_than_is_left(
    wished_s: float | None, nth: int, waits_s: float | None
) -> None:
    assert Retries(TIMES, Clock()).wait_s(TransientFailure("x", wished_s), nth, 0) == waits_s


def test_neither_a_byte_now_and_then_nor_what_comes_again_moves_the_deadline() -> None:
    clock = Clock()
    retries = Retries(TIMES, clock)

    def wait_s(written_bytes: int) -> float | None:
        clock.now_s += 59.5
        return retries.wait_s(TransientFailure("x"), 0, written_bytes)

    assert wait_s(99) is None
    assert wait_s(150) == 1
    assert wait_s(200) is None
    assert wait_s(0) is None
    assert wait_s(250) == 1


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "1.5", "Wed, 99 Foo 2026 00:00:00 GMT"])
def test_a_retry_after_that_says_nothing_is_none(value: str | None) -> None:
    assert retry_after_s(value) is None


def test_a_retry_after_in_the_past_is_no_wait() -> None:
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


ranges = st.lists(st.builds(lambda a, n: range(a, a + n), st.integers(0, 60), st.integers(0, 12)))


@given(ranges)
def test_a_set_of_ranges_holds_exactly_their_bytes(added: list[range]) -> None:
    held = {byte for each in added for byte in each}
    found = RangeSet(added)

    assert sorted(byte for each in found for byte in each) == sorted(held)
    assert found.size_bytes == len(held)
    assert found.front == next(n for n in range(100) if n not in held)
    gaps = {byte for each in found.gaps(50) for byte in each}
    assert gaps == set(range(50)) - held
    starts = [each.start for each in found]
    stops = [each.stop for each in found]
    assert all(stop < start for stop, start in zip(stops, starts[1:], strict=False))
