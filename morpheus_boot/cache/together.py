"""Does several things at once, in threads that the end of the process does not wait for: a volume may hang."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import TypeVar

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")


def together(
    work: Callable[[_Item], _Outcome], items: Iterable[_Item], at_once: int
) -> list[_Outcome]:
    """What ``work`` returns for each item, in their order, from up to ``at_once`` threads.

    Raises what ``work`` raised for the first item of which it raised anything, once all are through.
    """
    pairs = [(item, Future[_Outcome]()) for item in items]
    left = deque(pairs)

    def carry_out() -> None:
        while True:
            try:
                item, outcome = left.popleft()
            except IndexError:
                return
            try:
                outcome.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 - who waits raises it again
                outcome.set_exception(error)

    for _ in range(min(at_once, len(pairs))):
        threading.Thread(target=carry_out, name="together", daemon=True).start()
    wait([outcome for _, outcome in pairs])
    return [outcome.result() for _, outcome in pairs]
