"""The connection under a streamed answer: whether its client is still there, and how to cut it."""

import asyncio
import logging

from starlette.types import Receive, Scope

from morpheus_boot.errors import MorpheusError

_log = logging.getLogger("morpheus.fileserver")


class Connection:
    """What our protocol says about the connection of one request."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._transport: asyncio.Transport = scope["state"]["transport"]
        self._receive = receive

    @property
    def gone(self) -> bool:
        """Whether the client has closed it: uvicorn drops in silence what is sent then."""
        return self._transport.is_closing()

    async def cut(self, error: MorpheusError) -> None:
        """Ends it in the middle of an answer that can't be kept, so that the client sees it is not whole."""
        _log.warning("%s", error)
        self._transport.abort()
        await self.until_gone()

    async def until_gone(self) -> None:
        """Waits until uvicorn knows: else it reports an answer that was not completed as a bug of ours."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
