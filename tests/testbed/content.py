"""What an origin serves: bytes that need no memory, and that differ wherever they are misplaced."""

import functools
import hashlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PIECE_BYTES: Final = 256 * 1024

# A prime: two ranges of one file that begin at multiples of 8 MiB, or of anything, never hold the same bytes.
_PERIOD_BYTES: Final = 1_048_573
_SAFETENSORS_HEADER_BYTES: Final = 256
# The first pickle of torch's format before zip: its magic number.
_TORCH_PICKLE: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True, slots=True)
class Content:
    """A file's bytes: ``head``, then bytes drawn from ``seed``, ``size_bytes`` in all."""

    size_bytes: int
    seed: int = 0
    head: bytes = b""

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Those from ``start`` up to ``stop``, in pieces of at most PIECE_BYTES."""
        at = start
        while at < stop:
            length = min(PIECE_BYTES, stop - at)
            if at < len(self.head):
                piece = memoryview(self.head)[at : at + length]
            else:
                offset = at % _PERIOD_BYTES
                piece = memoryview(_drawn(self.seed))[offset : offset + length]
            yield piece
            at += len(piece)


def literal(content: bytes) -> Content:
    """Exactly these bytes."""
    return Content(len(content), head=content)


def safetensors(size_bytes: int, seed: int = 0) -> Content:
    """A whole .safetensors file of one tensor; ``size_bytes`` at least 264."""
    data_bytes = size_bytes - 8 - _SAFETENSORS_HEADER_BYTES
    header = json.dumps(
        {"weight": {"dtype": "U8", "shape": [data_bytes], "data_offsets": [0, data_bytes]}}
    )
    head = struct.pack("<Q", _SAFETENSORS_HEADER_BYTES)
    return Content(size_bytes, seed, head=head + header.ljust(_SAFETENSORS_HEADER_BYTES).encode())


def torch_pickle(size_bytes: int, seed: int = 0) -> Content:
    """A .ckpt or .bin as torch wrote them before its zip format: a pickle, and no end that shows."""
    return Content(size_bytes, seed, head=_TORCH_PICKLE)


def torch_zip(size_bytes: int, seed: int = 0) -> Content:
    """A whole .pth, .pt or .bin as torch writes them: a zip that stores one member."""
    drawn = Content(size_bytes - len(_zipped(b"")), seed)
    return literal(_zipped(read_all(drawn)))


def _zipped(member: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), member)
    return buffer.getvalue()


def read_all(content: Content) -> bytes:
    """All bytes at once; for small contents."""
    return b"".join(content.pieces(0, content.size_bytes))


def sha256(content: Content) -> str:
    """The SHA-256 of all bytes, in hex digits."""
    digest = hashlib.sha256()
    for piece in content.pieces(0, content.size_bytes):
        digest.update(piece)
    return digest.hexdigest()


def write_to(content: Content, path: Path) -> Path:
    """Writes all bytes to ``path``, making its folder; returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in content.pieces(0, content.size_bytes):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return path


@functools.lru_cache(maxsize=8)
def _drawn(seed: int) -> bytes:
    period = hashlib.shake_256(seed.to_bytes(8, "little")).digest(_PERIOD_BYTES)
    return period + period[:PIECE_BYTES]


def nest(folder: Path, depth: int = 1500) -> None:
    """Makes folders in one another, deeper than a recursion goes and a process may have open."""
    folder.mkdir(parents=True, exist_ok=True)
    at = os.open(folder, os.O_PATH)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_PATH, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
