"""The stand-in reads the PNG files that other programs write."""

import struct
import zlib
from itertools import product
from types import ModuleType

import pytest

from morpheus_boot.smoke.picture import gradient
from tests.smoke.pixels import stand_in_png

_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


@pytest.fixture(scope="module")
def png() -> ModuleType:
    return stand_in_png()


def _paeth(a: int, b: int, c: int) -> int:
    p = a + b - c
    distances = (abs(p - a), abs(p - b), abs(p - c))
    return (a, b, c)[distances.index(min(distances))]


def _filtered(row: bytes, above: bytes, kind: int, channels: int) -> bytes:
    """The forward filter, as the PNG specification defines it (9.2)."""
    out = bytearray([kind])
    for i, x in enumerate(row):
        a = row[i - channels] if i >= channels else 0
        b = above[i]
        c = above[i - channels] if i >= channels else 0
        out.append((x - (0, a, b, (a + b) // 2, _paeth(a, b, c))[kind]) % 256)
    return bytes(out)


def _file(width: int, height: int, colour: int, rows: list[bytes], extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = zlib.compress(b"".join(rows))
    chunks = [(b"IHDR", header), *([(b"PLTE", extra)] if extra else [])]
    # Encoders cut the pixels into several chunks.
    chunks += [(b"IDAT", body[:7]), (b"IDAT", body[7:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )


@pytest.mark.parametrize(("kind", "colour"), list(product(range(5), _CHANNELS)))
def test_every_filter_of_every_colour_type_is_undone(
    png: ModuleType, kind: int, colour: int
) -> None:
    width, height, channels = 5, 4, _CHANNELS[colour]
    plain = [
        bytes((37 * y + 11 * i * i) % 256 for i in range(width * channels)) for y in range(height)
    ]
    above = [bytes(width * channels), *plain]
    rows = [_filtered(row, above[y], kind, channels) for y, row in enumerate(plain)]

    picture = png.decode(_file(width, height, colour, rows))

    samples = b"".join(plain)
    pixels = [samples[i : i + channels] for i in range(0, len(samples), channels)]
    expected = b"".join(p[:3] if channels > 2 else p[:1] * 3 for p in pixels)
    assert (picture.width, picture.height, picture.rgb) == (width, height, expected)


def test_a_palette_is_looked_up(png: ModuleType) -> None:
    rows = [bytes([0, 1, 0])]

    assert png.decode(_file(2, 1, 3, rows, extra=b"\1\2\3\4\5\6")).rgb == b"\4\5\6\1\2\3"


def test_a_picture_survives_writing_and_reading(png: ModuleType) -> None:
    picture = png.decode(gradient(7, 5))

    assert png.decode(png.encode(picture, {"prompt": "{}"})) == picture


def test_scaling_takes_the_nearest_pixel(png: ModuleType) -> None:
    picture = png.Picture(2, 1, b"\1\1\1\2\2\2")

    assert png.Picture(4, 2, (b"\1\1\1" * 2 + b"\2\2\2" * 2) * 2) == picture.scaled(4, 2)
    assert picture.scaled(1, 1).rgb == b"\1\1\1"


@pytest.mark.parametrize("content", [b"", b"<html>", gradient(4, 4)[:40], gradient(4, 4)[:-30]])
def test_anything_but_a_whole_png_is_refused(png: ModuleType, content: bytes) -> None:
    with pytest.raises(ValueError, match="cannot identify image file"):
        png.decode(content)
