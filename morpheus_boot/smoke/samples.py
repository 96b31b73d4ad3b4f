"""The files that smoke works with, written by the standard library: PNG pictures and safetensors models.

A safetensors file: 8 bytes with the header's length, little-endian; the header, JSON; the tensors' bytes
(https://github.com/huggingface/safetensors, "Format").
"""

import json
import random
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# An SRVGGNetCompact network, which UpscaleModelLoader loads: layers of 4 features, doubling the size.
_FEATURES: Final = 4
_FACTOR: Final = 2


def gradient(width: int, height: int) -> bytes:
    """A PNG file whose pixels differ."""
    rows = (
        b"\0" + bytes(v for x in range(width) for v in (255 * x // width, 255 * y // height, 128))
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def png_size(content: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG file states; None where ``content`` is not a whole PNG file."""
    whole = content.startswith(_SIGNATURE) and content.endswith(b"IEND" + b"\xaeB`\x82")
    if not whole:
        return None
    width, height = struct.unpack_from(">II", content, len(_SIGNATURE) + 8)
    return width, height


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Single-precision numbers, ``prod(shape)`` of them."""

    shape: tuple[int, ...]
    content: bytes


def _encode(tensors: Mapping[str, _Tensor]) -> bytes:
    """The bytes of a whole safetensors file."""
    header: dict[str, object] = {"__metadata__": {"made_by": "morpheus boot smoke"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + len(tensor.content)
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    bodies = (tensor.content for tensor in tensors.values())
    return b"".join((struct.pack("<Q", len(text)), text, *bodies))


def upscaler() -> bytes:
    """A model of some kilobytes that ComfyUI can really load and run, on a CPU too."""
    colours = 3
    last = colours * _FACTOR**2
    shapes = {
        "body.0.weight": (_FEATURES, colours, 3, 3),
        "body.0.bias": (_FEATURES,),
        "body.1.weight": (_FEATURES,),
        "body.2.weight": (_FEATURES, _FEATURES, 3, 3),
        "body.2.bias": (_FEATURES,),
        "body.3.weight": (_FEATURES,),
        "body.4.weight": (last, _FEATURES, 3, 3),
        "body.4.bias": (last,),
    }
    draw = random.Random(0)  # noqa: S311 - weights, not secrets
    return _encode({name: _drawn(shape, draw) for name, shape in shapes.items()})


def filler(size_bytes: int, seed: int) -> bytes:
    """A whole file of about ``size_bytes`` with one tensor that no node reads."""
    content = random.Random(seed).randbytes(size_bytes // 4 * 4)  # noqa: S311 - weights, not secrets
    return _encode({"filler": _Tensor((len(content) // 4,), content)})


def _drawn(shape: tuple[int, ...], draw: random.Random) -> _Tensor:
    numbers = [draw.uniform(-0.1, 0.1) for _ in range(prod(shape))]
    return _Tensor(shape, struct.pack(f"<{len(numbers)}f", *numbers))
