"""Pictures of the stand-in: PNG files, of which it knows the size and the first pixel's colour."""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
# The types whose pixels begin with red, green and blue: with and without alpha (PNG, 11.2.2).
_COLOURED: Final = (2, 6)


@dataclass(frozen=True, slots=True)
class Picture:
    """Either the PNG file ``content`` as it came, or all of the one colour ``rgb``, three bytes."""

    width: int
    height: int
    rgb: bytes
    content: bytes | None = None

    @classmethod
    def plain(cls, width: int, height: int, rgb: bytes) -> "Picture":
        """A picture of one colour."""
        return cls(width, height, rgb)


def encode(picture: Picture, texts: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The picture as a PNG file with ``texts`` in it (SaveImage leaves the prompt there)."""
    content = picture.content
    if content is None:
        row = b"\0" + picture.rgb * picture.width
        header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
        body = _chunk(b"IDAT", zlib.compress(row * picture.height, 1))
        content = _SIGNATURE + _chunk(b"IHDR", header) + body + _END
    notes = (_chunk(b"tEXt", f"{key}\0{text}".encode()) for key, text in texts.items())
    return content.removesuffix(_END) + b"".join(notes) + _END


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def decode(content: bytes) -> Picture:
    """The picture in a PNG file. Raises ValueError for anything else."""
    if not content.startswith(_SIGNATURE) or not content.endswith(_END):
        message = "cannot identify image file"
        raise ValueError(message)
    width, height, depth, kind = struct.unpack_from(">IIBB", content, 16)
    if depth != 8 or kind not in _COLOURED:
        return Picture(width, height, bytes(3), content)
    at = content.index(b"IDAT") + 4
    # Nothing stands before the first pixel, so that it is what it is under every filter.
    pixels = zlib.decompressobj().decompress(content[at:], 4)
    return Picture(width, height, pixels[1:4], content)
