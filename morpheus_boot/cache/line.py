"""A line that is worked through by a few at once; what can't be worked on yet stands aside, and is looked at."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from threading import Event
from typing import Final, TypeVar

from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import Stopped

# Each look is three calls on the volume: a worker makes no more than some dozens of looks a second.
_LOOKS_A_POLL: Final = 16

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")


def work_through(
    items: Iterable[_Item],
    work: Callable[[_Item], _Outcome | None],
    is_ready: Callable[[_Item, bool], bool],
    *,
    at_once: int,
    poll_s: float,
    most_polls: int,
    stopping: Event,
) -> Iterator[tuple[_Item, _Outcome]]:
    """Each item with what ``work`` returns for it, as it comes, from up to ``at_once`` threads.

    None puts the item aside. The caller's thread asks ``is_ready`` of it every ``poll_s``, or where many stand aside
    less often, up to ``most_polls`` of these apart, until it may go back into the line; and tells it whether nothing is
    at work, so that all there is to do is to wait.

    Raises Stopped, or what ``work`` raised, once those at work are through.
    """
    ready, aside = deque(items), list[_Item]()
    at_work: dict[Future[_Outcome | None], _Item] = {}
    looked_at = time.monotonic()
    try:
        while ready or aside or at_work:
            while ready and len(at_work) < at_once:
                item = ready.popleft()
                at_work[begin(partial(work, item), "fill")] = item
            if at_work:
                for done in wait(at_work, poll_s, FIRST_COMPLETED).done:
                    item, outcome = at_work.pop(done), done.result()
                    if outcome is None:
                        aside.append(item)
                    else:
                        yield item, outcome
            elif stopping.wait(poll_s):
                raise Stopped
            polls = min(most_polls, polls_between_looks(len(aside)))
            if time.monotonic() - looked_at >= polls * poll_s:
                back = [item for item in aside if is_ready(item, not at_work)]
                ready.extend(back)
                aside = [item for item in aside if item not in back]
                looked_at = time.monotonic()
    finally:
        wait(at_work)


def polls_between_looks(aside: int) -> int:
    """How many polls apart the looks at so many items are."""
    return 1 + aside // _LOOKS_A_POLL
