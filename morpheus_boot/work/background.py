"""Work in threads that the end of the process does not wait for.

A call on a volume that hangs never returns. Python joins all threads at its exit but daemons, and those of an executor
though they are daemons: one of them would keep the process for ever.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import TypeVar

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")


def begin(work: Callable[[], _Outcome], name: str) -> Future[_Outcome]:
    """Begins ``work`` in a thread of its own, called ``name``; the future has what it returned or raised."""
    outcome: Future[_Outcome] = Future()
    threading.Thread(target=_carry_out, args=(work, outcome), name=name, daemon=True).start()
    return outcome


def together(
    work: Callable[[_Item], _Outcome], items: Iterable[_Item], at_once: int
) -> list[_Outcome]:
    """What ``work`` returns for each item, in their order, from up to ``at_once`` threads.

    Raises what ``work`` raised for the first item of which it raised anything, once all are through.
    """
    each = [(partial(work, item), Future[_Outcome]()) for item in items]
    left = deque(each)

    def carry_out_all() -> None:
        with suppress(IndexError):
            while True:
                _carry_out(*left.popleft())

    for _ in range(min(at_once, len(each))):
        begin(carry_out_all, "together")
    outcomes = [outcome for _, outcome in each]
    wait(outcomes)
    return [outcome.result() for outcome in outcomes]


def _carry_out(work: Callable[[], _Outcome], outcome: Future[_Outcome]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - whoever asks for the result raises it again
        outcome.set_exception(error)
