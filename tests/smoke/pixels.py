"""What a PNG file shows, for tests that compare pictures: RGB or RGBA in 8 bits, as ComfyUI writes it."""

import struct
import zlib

_CHANNELS = {2: 3, 6: 4}


def pixels(content: bytes) -> tuple[int, int, bytes]:
    """Width, height and the RGB bytes of a PNG file."""
    chunks, at = {b"IDAT": b""}, 8
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        chunks[kind] = chunks.get(kind, b"") + content[at + 8 : at + 8 + size]
        at += size + 12
    width, height, _, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    channels = _CHANNELS[colour]
    packed, stride = zlib.decompress(chunks[b"IDAT"]), width * channels
    above, shown = bytes(stride), b""
    for y in range(height):
        line = bytearray(packed[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        _unfilter(packed[y * (stride + 1)], line, above, channels)
        above = bytes(line)
        shown += bytes(value for i, value in enumerate(line) if i % channels < 3)
    return width, height, shown


def _unfilter(kind: int, line: bytearray, above: bytes, channels: int) -> None:
    """Undoes one row's filter in place (PNG, 9.2): none, left, up, average, Paeth."""
    for i, value in enumerate(line):
        left = line[i - channels] if i >= channels else 0
        corner = above[i - channels] if i >= channels else 0
        nearest = left + above[i] - corner
        paeth = min((left, above[i], corner), key=lambda one: abs(one - nearest))
        line[i] = (value + (0, left, above[i], (left + above[i]) // 2, paeth)[kind]) & 0xFF
