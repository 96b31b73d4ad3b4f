"""Threads for calls on the volume, which may hang: the event loop never makes one itself.

A cut MooseFS link blocks a call for as long as it lasts, and its thread can't be killed. So the threads
are bounded, daemons (a hung one must not keep the process from ending), and who waits gives up in time.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

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

    Each call first looks whether the volume is there, and raises VolumeGone where it is not.

    For one event loop; every method but the threads' own runs there.
    """

    def __init__(self, presence: Presence, name: str, size: int, waiting: int) -> None:
        self._presence = presence
        self._name = name
        self._size = size
        self._waiting = waiting
        self._queue: SimpleQueue[_Call[Any]] = SimpleQueue()
        self._threads = 0
        # Calls that no thread has reported back, waited for or not.
        self._under_way = 0

    def start(
        self,
        call: Callable[[], _T],
        *,
        abandoned: Callable[[_T], object] | None = None,
        always: bool = False,
    ) -> asyncio.Future[_T]:
        """Runs ``call`` in a thread. ``abandoned`` gets, there, a result that nobody waits for any more.

        Raises VolumeHangs when too many calls wait already. ``always``: for what cleans up, whatever the volume is.
        """
        if self._under_way >= self._size + self._waiting and not always:
            raise VolumeHangs("volume", "it does not answer", "try again later")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._under_way += 1
        checked = call if always else lambda: self._checked(call)
        self._queue.put(_Call(checked, future, loop, abandoned, self._reported))
        if self._under_way > self._threads < self._size:
            self._threads += 1
            name = f"{self._name}-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

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

    async def wait(self, future: asyncio.Future[_T], *, deadline_s: float = _DEADLINE_S) -> _T:
        """The result of a started call. Raises as ``run`` does."""
        timer = asyncio.get_running_loop().call_later(deadline_s, _give_up, future, deadline_s)
        try:
            return await future
        finally:
            timer.cancel()

    def _checked(self, call: Callable[[], _T]) -> _T:
        self._presence.require()
        return call()

    def _reported(self) -> None:
        self._under_way -= 1

    def _work(self) -> None:
        while True:
            self._queue.get().run()


class _Call(Generic[_T]):
    __slots__ = ("_abandoned", "_call", "_future", "_loop", "_reported")

    def __init__(
        self,
        call: Callable[[], _T],
        future: asyncio.Future[_T],
        loop: asyncio.AbstractEventLoop,
        abandoned: Callable[[_T], object] | None,
        reported: Callable[[], None],
    ) -> None:
        self._call = call
        self._future = future
        self._loop = loop
        self._abandoned = abandoned
        self._reported = reported

    def run(self) -> None:
        """Makes the call and hands its outcome to the loop."""
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - who waits gets it, whatever it is
            self._tell(self._fail, error)
        else:
            self._tell(self._succeed, result)

    def _tell(self, say: Callable[[Any], None], outcome: object) -> None:
        try:
            self._loop.call_soon_threadsafe(say, outcome)
        except RuntimeError:
            return  # the loop is closed: the process ends, and nobody waits

    def _succeed(self, result: _T) -> None:
        self._reported()
        if not self._future.done():
            self._future.set_result(result)
        elif self._abandoned is not None:
            abandoned = self._abandoned
            # Closing a file may hang as well.
            threading.Thread(target=lambda: abandoned(result), daemon=True).start()

    def _fail(self, error: BaseException) -> None:
        self._reported()
        if not self._future.done():
            self._future.set_exception(error)


def _give_up(future: asyncio.Future[Any], deadline_s: float) -> None:
    if not future.done():
        future.set_exception(
            VolumeHangs("volume", f"it has not answered for {deadline_s:.0f} s", "try again later")
        )
