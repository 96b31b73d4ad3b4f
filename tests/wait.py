"""Waiting for an outcome: the only place in the tests that lets time pass."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

_INTERVAL_S: Final = 0.02

_T = TypeVar("_T")


def wait_until(condition: Callable[[], _T], timeout_s: float = 10) -> _T:
    """Calls ``condition`` until it returns anything but False and raises no AssertionError; returns what it returned.

    So both a predicate (``lambda: file.exists()``) and a function of asserts (which returns None) will do.

    Raises:
        AssertionError: after ``timeout_s``, with the condition's own last one as its cause.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        failure: AssertionError | None = None
        try:
            outcome = condition()
        except AssertionError as error:
            failure = error
        else:
            if outcome is not False:
                return outcome
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {condition}") from failure
        time.sleep(_INTERVAL_S)
