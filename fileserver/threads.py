"""Threads for calls on the volume, which may hang: the event loop never makes one itself.

A cut MooseFS link blocks a call for as long as it lasts, and its thread can't be killed. So the threads are bounded,
and who waits gives up in time. The process ends by os._exit: a thread that hangs does not keep it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from morpheus_boot.errors import Exit, MorpheusError
from morpheus_boot.volume.presence import Presence

_T = TypeVar("_T")

# Longer than a busy volume takes; RunPod's proxy gives up on a request after 100 s.
_DEADLINE_S: Final = 90.0


class VolumeHangs(MorpheusError):
    """The volume does not answer, or too many calls wait for it."""

    exit_code = Exit.STORAGE


class VolumeThreads:
    """Up to ``size`` threads, made as they are needed, and up to ``waiting`` calls that wait for one.

    Each call first looks whether the volume is there, and raises VolumeGone where it is not. For one event loop.
    """

    def __init__(self, presence: Presence, name: str, size: int, waiting: int) -> None:
        self._presence = presence
        self._pool = ThreadPoolExecutor(size, name)
        self._most_calls = size + waiting
        # Calls that no thread has reported back, waited for or not.
        self._under_way = 0

    def start(
        self,
        call: Callable[[], _T],
        *,
        abandoned: Callable[[_T], object] | None = None,
        always: bool = False,
    ) -> asyncio.Future[_T]:
        """Runs ``call`` in a thread. ``abandoned`` gets, in one too, a result that nobody waits for any more.

        Raises VolumeHangs when too many calls wait already. ``always``: for what cleans up, whatever the volume is.
        """
        if self._under_way >= self._most_calls and not always:
            raise VolumeHangs("volume", "it does not answer", "try again later")
        loop = asyncio.get_running_loop()
        waited: asyncio.Future[_T] = loop.create_future()

        def report(made: Future[_T]) -> None:
            self._under_way -= 1
            failure = made.exception()
            if not waited.done():
                if failure is None:
                    waited.set_result(made.result())
                else:
                    waited.set_exception(failure)
            elif failure is None and abandoned is not None:
                self._pool.submit(abandoned, made.result())

        def reported(made: Future[_T]) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process ends, and nobody waits
                loop.call_soon_threadsafe(report, made)

        self._under_way += 1
        self._pool.submit(call if always else lambda: self._checked(call)).add_done_callback(
            reported
        )
        return waited

    async def run(
        self,
        call: Callable[[], _T],
        *,
        abandoned: Callable[[_T], object] | None = None,
        deadline_s: float = _DEADLINE_S,
    ) -> _T:
        """Runs ``call`` in a thread and waits for its result.

        Raises VolumeHangs when it does not come within ``deadline_s``, and what ``call`` raises.
        """
        return await self.wait(self.start(call, abandoned=abandoned), deadline_s=deadline_s)

    async def wait(self, waited: asyncio.Future[_T], *, deadline_s: float = _DEADLINE_S) -> _T:
        """The result of a started call. Raises as ``run`` does."""
        try:
            async with asyncio.timeout(deadline_s):
                return await waited
        except TimeoutError:
            raise VolumeHangs(
                "volume", f"it has not answered for {deadline_s:.0f} s", "try again later"
            ) from None

    def _checked(self, call: Callable[[], _T]) -> _T:
        self._presence.require()
        return call()
