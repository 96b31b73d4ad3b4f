"""PNG in and out, with the standard library alone."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Samples a pixel by colour type: gray, RGB, palette, gray with alpha, RGB with alpha (PNG, 11.2.2).
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


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
        return Picture(
            width, height, b"".join(rows[y * self.height // height] for y in range(height))
        )


def encode(picture: Picture, texts: Mapping[str, str]) -> bytes:
    """The picture as a PNG file with ``texts`` in it (SaveImage leaves the prompt there)."""
    stride = 3 * picture.width
    rows = b"".join(
        b"\0" + picture.rgb[y * stride : (y + 1) * stride] for y in range(picture.height)
    )
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    notes = (_chunk(b"tEXt", f"{key}\0{text}".encode()) for key, text in texts.items())
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            *notes,
            _chunk(b"IDAT", zlib.compress(rows, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def decode(content: bytes) -> Picture:
    """The picture in a PNG file, without its alpha.

    Raises ValueError for anything but a whole PNG of 8 bits a sample that is not interlaced.
    """
    try:
        return _decode(content)
    except (struct.error, zlib.error, KeyError, IndexError) as error:
        message = f"cannot identify image file: {error}"
        raise ValueError(message) from error


def _decode(content: bytes) -> Picture:
    chunks = list(_chunks(content))
    by_kind = dict(chunks)
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", by_kind[b"IHDR"])
    if depth != 8 or interlace:
        message = "the stand-in reads PNG of 8 bits a sample that is not interlaced"
        raise ValueError(message)
    packed = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    channels = _CHANNELS[colour]
    rows = b"".join(_rows(packed, width * channels, height, channels))
    if colour == 3:
        palette = by_kind[b"PLTE"]
        return Picture(width, height, b"".join(palette[3 * i : 3 * i + 3] for i in rows))
    if channels <= 2:
        return Picture(width, height, bytes(v for v in rows[::channels] for _ in range(3)))
    planes = (rows[c::channels] for c in range(3))
    return Picture(width, height, bytes(v for pixel in zip(*planes, strict=True) for v in pixel))


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not content.startswith(_SIGNATURE):
        message = "cannot identify image file"
        raise ValueError(message)
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", content, at)
        yield kind, content[at + 8 : at + 8 + size]
        at += size + 12


def _rows(packed: bytes, stride: int, height: int, channels: int) -> Iterator[bytes]:
    above = bytes(stride)
    for y in range(height):
        line = bytearray(packed[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        _unfilter(packed[y * (stride + 1)], line, above, channels)
        above = bytes(line)
        yield above


def _unfilter(kind: int, line: bytearray, above: bytes, channels: int) -> None:
    """Undoes one row's filter in place (PNG, 9.2): none, left, up, average, Paeth."""
    if kind == 0:
        return
    for i, value in enumerate(line):
        left = line[i - channels] if i >= channels else 0
        corner = above[i - channels] if i >= channels else 0
        guess = (left, above[i], (left + above[i]) // 2, _paeth(left, above[i], corner))[kind - 1]
        line[i] = (value + guess) & 0xFF


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda value: abs(guess - value))
