"""uvicorn around the application, and the housekeeping beside it."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Final

import uvicorn
import uvloop

from fileserver.app import build_app
from fileserver.housekeeping import keep_house
from fileserver.protocol import Protocol
from fileserver.settings import ServerSettings
from fileserver.threads import VolumeThreads
from morpheus_boot.jobs.runner import Runner
from morpheus_boot.volume.presence import Presence

_log = logging.getLogger("morpheus.fileserver")

# The boot's own grace is 4 s: what is under way by this time is cut, and has the rest to clear up after itself.
_GRACE_S: Final = 2
_CLEAR_UP_S: Final = 1
# Longer than RunPod's proxy and other clients keep a connection that they want to use again.
_KEEP_ALIVE_S: Final = 65
# With those that only wait; LastResort counts the requests.
_MOST_CONNECTIONS: Final = 4096
_JOB_THREADS: Final = 4
_WAITING_CALLS: Final = 512


def serve(settings: ServerSettings, sockets: Sequence[socket.socket]) -> None:
    """Serves on ``sockets`` until SIGTERM or SIGINT."""
    _join_logs()
    presence = Presence(settings.volume) if settings.volume is not None else None
    runner = _runner(settings, presence)
    config = uvicorn.Config(
        build_app(settings, presence, runner),
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S + _CLEAR_UP_S,
    )
    _log.info("listening on port %s", ", ".join(str(s.getsockname()[1]) for s in sockets))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(_serve(_Server(config), settings, presence, sockets, runner))


class _Server(uvicorn.Server):
    def stop(self) -> None:
        """Ends it: what works beside it has ended, and the boot starts both anew."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Waits for what is under way, then cuts it; uvicorn would cancel it, which is no clean end."""
        asyncio.get_running_loop().call_later(_GRACE_S, self._cut)
        await super().shutdown(sockets)

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


async def _serve(
    server: _Server,
    settings: ServerSettings,
    presence: Presence | None,
    sockets: Sequence[socket.socket],
    runner: Runner | None,
) -> None:
    beside: list[asyncio.Task[None]] = []
    if presence is not None:
        threads = VolumeThreads(presence, "house", 1, 1)
        house = keep_house(
            presence.layout, threads, settings.job_ttl_hours, settings.limits.upload_keeps_s
        )
        beside.append(asyncio.create_task(house))
    if runner is not None:
        beside.append(asyncio.create_task(runner.run(settings.comfyui_port, settings.token)))
    for task in beside:
        task.add_done_callback(lambda _: server.stop())
    try:
        await server.serve(sockets=list(sockets))
    finally:
        for task in beside:
            task.cancel()
        for task in beside:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _runner(settings: ServerSettings, presence: Presence | None) -> Runner | None:
    if presence is None or settings.worker is None:
        return None
    threads = VolumeThreads(presence, "jobs", _JOB_THREADS, _WAITING_CALLS)
    return Runner(presence.layout, threads, settings.worker, settings.times)


def _join_logs() -> None:
    """Lines of uvicorn are lines of our log, but what it says of clients, and of answers that we cut ourselves."""
    theirs = logging.getLogger("uvicorn")
    theirs.handlers[:] = logging.getLogger("morpheus").handlers
    theirs.propagate = False
    for name in ("uvicorn", "uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
