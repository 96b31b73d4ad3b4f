"""How many prompts ComfyUI has yet to run, asked over loopback for the metrics."""

import asyncio
import json
from typing import Final

from morpheus_boot.redact import Secret

_TIMEOUT_S: Final = 1.0
_LONGEST_ANSWER_BYTES: Final = 64 * 2**10


async def queue_length(port: int, token: Secret | None) -> int | None:
    """The length of ComfyUI's queue, what runs included; None where it does not answer."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            answer = await _get(port, "/prompt", token)
        return int(json.loads(answer)["exec_info"]["queue_remaining"])
    except (OSError, TimeoutError, ValueError, KeyError, TypeError):
        return None


async def _get(port: int, path: str, token: Secret | None) -> bytes:
    """The body of one GET; HTTP/1.0, so that it ends with the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = [f"GET {path} HTTP/1.0", "Host: 127.0.0.1"]
        if token is not None:
            head.append(f"X-Morpheus-Token: {token.reveal()}")
        writer.write("\r\n".join([*head, "", ""]).encode())
        answer = await reader.read(_LONGEST_ANSWER_BYTES)
        while more := await reader.read(_LONGEST_ANSWER_BYTES):
            answer += more
            if len(answer) > _LONGEST_ANSWER_BYTES:
                break
        return answer.partition(b"\r\n\r\n")[2]
    finally:
        writer.close()
