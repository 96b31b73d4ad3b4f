"""A supervisor that does not come back fails its test instead of stopping all tests."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

_LIMIT_S = 20


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    def late(_signum: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"not over after {_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
