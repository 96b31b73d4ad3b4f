"""What the server clears away by itself: leftovers of dead processes when it starts, old jobs each hour."""

import asyncio
import logging
from typing import Final

from fileserver.threads import VolumeThreads
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.removal import empty_trash, expire_jobs
from morpheus_boot.jobs.resumable import UploadStore
from morpheus_boot.jobs.uploads import sweep_parts
from morpheus_boot.volume.layout import Layout

_LOG: Final = logging.getLogger("morpheus.fileserver")

_INTERVAL_S: Final = 3600.0
# A volume of a million files is slow to clear; the threads must not be held for ever either.
_DEADLINE_S: Final = 1800.0
# A log line names so many jobs.
_NAMED: Final = 10


async def keep_house(
    layout: Layout, threads: VolumeThreads, ttl_hours: float | None, upload_keeps_s: float
) -> None:
    """Runs until it is cancelled; a volume that fails is in the log, and tried again."""
    while True:
        try:
            parts = await threads.run(lambda: sweep_parts(layout), deadline_s=_DEADLINE_S)
            if parts:
                _LOG.info("removed %d parts of uploads that nobody finishes", parts)
            await threads.run(lambda: empty_trash(layout), deadline_s=_DEADLINE_S)
            if ttl_hours is not None:
                await _expire(layout, threads, ttl_hours)
            uploads = await threads.run(
                UploadStore(layout, upload_keeps_s).sweep, deadline_s=_DEADLINE_S
            )
            if uploads:
                _LOG.info("removed %d resumable uploads that have expired", uploads)
        except MorpheusError as error:
            _LOG.warning("housekeeping: %s", error)
        await asyncio.sleep(_INTERVAL_S)


async def _expire(layout: Layout, threads: VolumeThreads, ttl_hours: float) -> None:
    jobs = await threads.run(lambda: expire_jobs(layout, ttl_hours * 3600), deadline_s=_DEADLINE_S)
    if jobs:
        named = ", ".join(jobs[:_NAMED])
        _LOG.info("removed %d jobs untouched for %g h: %s", len(jobs), ttl_hours, named)
