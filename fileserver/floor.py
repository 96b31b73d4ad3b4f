"""The floor under what clients send: no deadline on the whole, and none that trickle for ever."""

import asyncio
from collections.abc import Awaitable, Callable

from morpheus_boot.config.variables import Limits


class Floor:
    """Ends an upload whose client sends less than so many bytes a second; our own disk's time is not counted."""

    def __init__(self, limits: Limits) -> None:
        self.bytes_per_s = limits.upload_floor_bytes_per_s
        self._window_s = limits.upload_window_s
        self._due_bytes = int(self.bytes_per_s * self._window_s)
        self._left_bytes = self._due_bytes
        self._timeout: asyncio.Timeout | None = None

    def begin(self, timeout: asyncio.Timeout) -> None:
        """Counts against ``timeout``, which has a window's time to run."""
        self._timeout = timeout

    def count(self, size_bytes: int) -> None:
        """Says that so many bytes arrived; a window's worth of them begins the next window."""
        self._left_bytes -= size_bytes
        if self._left_bytes <= 0 and self._timeout is not None:
            self._left_bytes = self._due_bytes
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._window_s)

    async def pause(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Awaits ``wait`` off the clock."""
        if self._timeout is None:
            await wait()
            return
        now = asyncio.get_running_loop().time
        left_s = (self._timeout.when() or now()) - now()
        self._timeout.reschedule(None)
        await wait()
        self._timeout.reschedule(now() + max(left_s, 0.0))
