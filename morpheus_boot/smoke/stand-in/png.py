"""Pictures, and PNG files of the plainest kind: RGB, 8 bits a sample, rows as they are (filter 0)."""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_KIND: Final = struct.pack(">BBBBB", 8, 2, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image: rows of red, green, blue, one byte each."""

    width: int
    height: int
    rgb: bytes

    @classmethod
    def plain(cls, width: int, height: int, rgb: bytes) -> "Picture":
        """A picture of the one colour ``rgb``, three bytes."""
        return cls(width, height, rgb * (width * height))

    def scaled(self, width: int, height: int) -> "Picture":
        """The picture in another size, each pixel the nearest one."""
        columns = [3 * (x * self.width // width) for x in range(width)]
        rows = {}
        for y in {y * self.height // height for y in range(height)}:
            row = self.rgb[3 * self.width * y : 3 * self.width * (y + 1)]
            rows[y] = b"".join(row[c : c + 3] for c in columns)
        shown = (rows[y * self.height // height] for y in range(height))
        return Picture(width, height, b"".join(shown))


def encode(picture: Picture, texts: Mapping[str, str] | None = None) -> bytes:
    """The picture as a PNG file with ``texts`` in it (SaveImage leaves the prompt there)."""
    stride = 3 * picture.width
    starts = range(0, len(picture.rgb), stride)
    rows = b"".join(b"\0" + picture.rgb[start : start + stride] for start in starts)
    notes = ((b"tEXt", f"{key}\0{text}".encode()) for key, text in (texts or {}).items())
    header = struct.pack(">II", picture.width, picture.height) + _KIND
    chunks = ((b"IHDR", header), *notes, (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def decode(content: bytes) -> Picture:
    """The picture in a PNG file. Raises ValueError for anything but one of this kind."""
    chunks, at = {b"IDAT": b""}, len(_SIGNATURE)
    while content.startswith(_SIGNATURE) and at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        chunks[kind] = chunks.get(kind, b"") + content[at + 8 : at + 8 + size]
        at += size + 12
    try:
        width, height = struct.unpack_from(">II", chunks[b"IHDR"])
        rows = zlib.decompress(chunks[b"IDAT"])
    except (KeyError, struct.error, zlib.error) as error:
        message = f"cannot identify image file: {error}"
        raise ValueError(message) from error
    stride = 3 * width + 1
    if chunks[b"IHDR"][8:] != _KIND or any(rows[::stride]):
        message = "the stand-in reads RGB in 8 bits without filters alone"
        raise ValueError(message)
    return Picture(
        width, height, b"".join(rows[y * stride + 1 : (y + 1) * stride] for y in range(height))
    )
