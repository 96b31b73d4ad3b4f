"""What clients of the queue send."""

import random
import struct
import zlib
from typing import Any

from tests.comfyui_node.served import node

Json = dict[str, Any]


def creation(steps: int = 2, **more: object) -> Json:
    """The Morpheus client's "texto a imagen"; a hundredth of a second a step on the stand-in."""
    return {
        "workflow_name": "creation",
        "prompt": 'a lighthouse, "the old one"',
        "negative_prompt": "blurry",
        "seed": 7,
        "steps": steps,
        "cfg_scale": 7.5,
        "sampler_name": "euler",
        "width": 64,
        "height": 32,
        "checkpoint_name": "sd.safetensors",
        **more,
    }


def picture_graph(color: int = 0, **more: object) -> Json:
    """worker-comfyui's form: a small picture of one colour."""
    graph = {
        "make": node("EmptyImage", width=8, height=4, batch_size=1, color=color),
        "save": node("SaveImage", images=["make", 0], filename_prefix="ComfyUI"),
    }
    return {"workflow": graph, **more}


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
