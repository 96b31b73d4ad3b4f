"""The engine's decisions, each with a clock of its own: growth, watchdog, meter, retries, ranges, budget."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_boot.cache.options import RetryPolicy
from morpheus_boot.cache.transfer.budget import Budget
from morpheus_boot.cache.transfer.growth import Growth
from morpheus_boot.cache.transfer.http import retry_after_s
from morpheus_boot.cache.transfer.meter import Meter
from morpheus_boot.cache.transfer.ranges import Span, Spans
from morpheus_boot.cache.transfer.retry import Retries, TransientFailure
from morpheus_boot.cache.transfer.watchdog import Watchdog
from morpheus_boot.volume.ranges import RangeSet


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def grown(bytes_per_s_of_each: float, most_bytes_per_s: float, share: int = 32) -> int:
    """The number of connections after ten seconds on a link of ``most_bytes_per_s``."""
    clock = Clock()
    growth = Growth(clock)
    received = 0.0
    for _ in range(100):
        connections = growth.target(share)
        growth.look(int(received), connections, share)
        clock.now_s += 0.1
        received += 0.1 * min(connections * bytes_per_s_of_each, most_bytes_per_s)
    return growth.target(share)


def test_connections_are_added_while_each_brings_its_share() -> None:
    assert grown(40e6, 1e12) == 32


def test_connections_that_bring_nothing_are_taken_back() -> None:
    assert grown(40e6, 320e6) == 8
    assert grown(40e6, 600e6) == 16


def test_no_transfer_has_more_than_its_share() -> None:
    assert grown(40e6, 1e12, share=5) == 5


def limits(*, endures: int, seconds: int) -> list[int]:
    """The number of connections at each second, of an origin that refuses more than ``endures``."""
    clock = Clock()
    growth = Growth(clock)
    seen = []
    for _ in range(seconds):
        target = growth.target(32)
        if target > endures:
            growth.limit(endures)
        growth.look(0, min(target, endures), 32)
        seen.append(growth.target(32))
        clock.now_s += 1
    return seen


def test_an_origin_that_refuses_connections_is_asked_for_more_ever_more_rarely() -> None:
    seen = limits(endures=3, seconds=400)

    tries = [at for at, target in enumerate(seen) if target > 3]
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert 3 <= len(tries) <= 10


def test_an_origin_that_was_away_for_a_moment_has_all_its_connections_again_soon() -> None:
    clock = Clock()
    growth = Growth(clock)
    for left in range(7, 0, -1):
        growth.limit(left)
    assert growth.target(32) == 1

    for _ in range(40):
        growth.look(0, growth.target(32), 32)
        clock.now_s += 1

    assert growth.target(32) >= 8


def test_a_connection_that_trickles_is_found_and_one_that_waits_for_the_volume_is_not() -> None:
    clock = Clock()
    watchdog = Watchdog(1000, 10, clock)
    assert not watchdog.trickles("a", 0)
    assert not watchdog.trickles("b", 0)
    clock.now_s += 9.9
    assert not watchdog.trickles("a", 50)
    watchdog.forget("b")
    clock.now_s += 0.2
    assert watchdog.trickles("a", 9999)
    assert not watchdog.trickles("b", 0)


def test_the_floor_is_asked_of_every_window_anew() -> None:
    clock = Clock()
    watchdog = Watchdog(1000, 10, clock)
    watchdog.trickles("a", 0)
    clock.now_s += 10
    assert not watchdog.trickles("a", 1_000_000)
    clock.now_s += 10
    assert watchdog.trickles("a", 1_000_000)


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


def test_waits_double_up_to_a_most_and_a_wish_of_the_origin_wins() -> None:
    retries = Retries(RetryPolicy(1, 5, 60), Clock(), jitter=lambda: 1.0)
    failure = TransientFailure("x")

    assert [retries.wait_s(failure, nth) for nth in range(4)] == [1, 2, 4, 5]
    assert retries.wait_s(TransientFailure("x", 33), 0) == 33


def test_a_byte_now_and_then_does_not_move_the_deadline() -> None:
    clock = Clock()
    retries = Retries(RetryPolicy(1, 5, 60, progress_bytes=100), clock, jitter=lambda: 0.0)
    for _ in range(61):
        clock.now_s += 1
        retries.progressed(1)
    assert retries.wait_s(TransientFailure("x"), 0) is None

    retries.progressed(100)

    assert retries.wait_s(TransientFailure("x"), 0) == 0.5


def test_an_origin_that_wishes_for_more_than_is_left_is_given_up_at_once() -> None:
    retries = Retries(RetryPolicy(1, 5, 60), Clock())
    assert retries.wait_s(TransientFailure("x", 3600), 0) is None


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "1.5", "Wed, 99 Foo 2026 00:00:00 GMT"])
def test_a_retry_after_that_says_nothing_is_none(value: str | None) -> None:
    assert retry_after_s(value) is None


def test_a_retry_after_in_the_past_is_no_wait() -> None:
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_an_origin_that_wishes_for_no_wait_is_not_asked_without_a_pause() -> None:
    retries = Retries(RetryPolicy(1, 5, 60), Clock(), jitter=lambda: 0.0)
    assert retries.wait_s(TransientFailure("429", 0.0), 0) == 0.5


def test_running_transfers_divide_the_connections() -> None:
    budget = Budget(32)
    with budget.entered():
        assert budget.share == 32
        with budget.entered(), budget.entered():
            assert budget.share == 10
        assert budget.share == 32


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


@given(ranges, st.integers(1, 20))
def test_spans_cover_what_is_missing_once_and_from_the_front(done: list[range], size: int) -> None:
    gaps = [Span(gap.start, gap.stop) for gap in RangeSet(done).gaps(50)]
    spans = Spans(gaps, size)
    expected = len(spans)

    taken = []
    while (span := spans.take()) is not None:
        taken.append(span)

    assert len(taken) == expected
    assert taken == sorted(taken, key=lambda each: each.start)
    covered = [byte for each in taken for byte in range(each.start, each.stop or 0)]
    assert covered == [byte for gap in gaps for byte in range(gap.start, gap.stop or 0)]
    assert all(0 < (each.stop or 0) - each.start <= size for each in taken)


def test_what_a_connection_did_not_bring_is_taken_next() -> None:
    spans = Spans([Span(0, 100)], 10)
    spans.take()
    spans.take()
    spans.give_back(Span(3, 10))
    spans.give_back(Span(20, 20))

    assert spans.take() == Span(3, 10)
    assert spans.take() == Span(20, 30)
