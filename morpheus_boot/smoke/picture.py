"""The picture that the chain uploads, and a look at the one that comes back; PNG, standard library alone."""

import struct
import zlib
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


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
