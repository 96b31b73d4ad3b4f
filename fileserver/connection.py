"""The connection under a streamed answer: whether its client still takes it, and how to cut it."""

import logging
from typing import Final

from starlette.types import Receive, Scope

from fileserver.protocol import GuardedProtocol
from morpheus_boot.errors import MorpheusError

_LOG: Final = logging.getLogger("morpheus.fileserver")


class Connection:
    """What our protocol says about the connection of one request."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._protocol: GuardedProtocol = scope["state"]["connection"]
        self._receive = receive

    async def wants_more(self) -> bool:
        """True when the client takes more, False when it has gone: uvicorn drops in silence what is sent then."""
        await self._protocol.ready_to_write()
        return not self._protocol.transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """What the socket has not taken yet, and so is still read from the buffers that it was given in."""
        return self._protocol.transport.get_write_buffer_size()

    async def cut(self, error: MorpheusError) -> None:
        """Ends it in the middle of an answer that can't be kept, so that the client sees it is not whole."""
        _LOG.warning("%s", error)
        self._protocol.transport.abort()
        await self.until_gone()

    async def until_gone(self) -> None:
        """Waits until uvicorn knows: else it reports an answer that was not completed as a bug of ours."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
