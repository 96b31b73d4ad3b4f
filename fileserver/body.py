"""A request's body in memory, within a limit and above the floor."""

import asyncio

from fastapi import Request

from fileserver.answers import BodyTooLarge, TooSlow
from fileserver.floor import Floor
from morpheus_boot.config.variables import Limits


async def read_body(request: Request, limits: Limits) -> bytes:
    """All of a job's body. Raises BodyTooLarge, TooSlow; ClientDisconnect."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.job_bytes:
        raise _too_large(limits)
    floor, body = Floor(limits), bytearray()
    try:
        async with asyncio.timeout(limits.upload_window_s) as timeout:
            floor.begin(timeout)
            async for piece in request.stream():
                body += piece
                floor.count(len(piece))
                if len(body) > limits.job_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        raise TooSlow("job", f"less than {floor.bytes_per_s} bytes/s arrive", "try again") from None
    return bytes(body)


def _too_large(limits: Limits) -> BodyTooLarge:
    cause = f"it is larger than {limits.job_bytes} bytes"
    return BodyTooLarge("job", cause, "upload its pictures with /upload, and name them")
