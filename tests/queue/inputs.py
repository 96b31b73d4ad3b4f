"""What clients of the queue send."""

import itertools
import random
import struct
import zlib
from typing import Any

import pytest

from tests.guard.served import REAL
from tests.jobs.graphs import CREATION, saved, slow

Json = dict[str, Any]
# ComfyUI runs the same graph only once: each has a number of its own in it.
_numbers = itertools.count(1)

stand_in_only = pytest.mark.skipif(REAL, reason="no ComfyUI here has a checkpoint")


def creation(**more: object) -> Json:
    """The Morpheus client's "texto a imagen"."""
    return {**CREATION, "seed": next(_numbers), **more}


def picture_graph(**more: object) -> Json:
    """worker-comfyui's form: a small picture of one colour."""
    return {"workflow": saved("", "ComfyUI", color=next(_numbers))["workflow"], **more}


def slow_graph(part: float = 1.0, **more: object) -> Json:
    """worker-comfyui's form: a minute and more of work, or ``part`` of it."""
    return {"workflow": slow("", next(_numbers), part)["workflow"], **more}


def noise(side: int) -> bytes:
    """A square PNG that does not compress."""
    draw = random.Random(1)  # noqa: S311 - pixels, not secrets
    rows = b"".join(b"\0" + draw.randbytes(3 * side) for _ in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
