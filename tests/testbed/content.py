"""What an origin serves: bytes that need no memory, and that differ wherever they are misplaced."""

import functools
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

PIECE_BYTES: Final = 256 * 1024

# A prime: two ranges of one file that begin at multiples of 8 MiB, or of anything, never hold the same bytes.
_PERIOD_BYTES: Final = 1_048_573
_SAFETENSORS_HEADER_BYTES: Final = 256
# The first pickle of torch's format before zip: its magic number.
_TORCH_PICKLE: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP_NAME: Final = b"archive/data.pkl"
_ZIP_LOCAL: Final = struct.Struct("<4s5H3L2H")
_ZIP_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_ZIP_END: Final = struct.Struct("<4s4H2LH")


class Content(Protocol):
    """A file's bytes."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""
        ...

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Those from ``start`` up to ``stop``, in pieces of at most PIECE_BYTES."""
        ...


@dataclass(frozen=True, slots=True)
class Generated:
    """``head``, then bytes drawn from ``seed``, then ``tail``: ``size_bytes`` in all."""

    size_bytes: int
    seed: int = 0
    head: bytes = b""
    tail: bytes = b""

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        drawn_end = self.size_bytes - len(self.tail)
        at = start
        while at < stop:
            if at < len(self.head):
                piece = memoryview(self.head)[at:stop]
            elif at < drawn_end:
                length = min(PIECE_BYTES, stop - at, drawn_end - at)
                offset = at % _PERIOD_BYTES
                piece = memoryview(_drawn(self.seed))[offset : offset + length]
            else:
                piece = memoryview(self.tail)[at - drawn_end : stop - drawn_end]
            yield piece[:PIECE_BYTES]
            at += len(piece[:PIECE_BYTES])


def literal(content: bytes) -> Generated:
    """Exactly these bytes."""
    return Generated(len(content), head=content)


def safetensors(size_bytes: int, seed: int = 0) -> Generated:
    """A whole .safetensors file of one tensor; ``size_bytes`` at least 264."""
    data_bytes = size_bytes - 8 - _SAFETENSORS_HEADER_BYTES
    header = json.dumps(
        {"weight": {"dtype": "U8", "shape": [data_bytes], "data_offsets": [0, data_bytes]}}
    )
    head = struct.pack("<Q", _SAFETENSORS_HEADER_BYTES)
    return Generated(size_bytes, seed, head=head + header.ljust(_SAFETENSORS_HEADER_BYTES).encode())


def torch_pickle(size_bytes: int, seed: int = 0) -> Generated:
    """A .ckpt or .bin as torch wrote them before its zip format: a pickle, and no end that shows."""
    return Generated(size_bytes, seed, head=_TORCH_PICKLE)


def torch_zip(size_bytes: int, seed: int = 0) -> Generated:
    """A whole .pth, .pt or .bin as torch writes them: a zip that stores one member; below 4 GiB."""
    directory_bytes = _ZIP_CENTRAL.size + len(_ZIP_NAME)
    local_bytes = _ZIP_LOCAL.size + len(_ZIP_NAME)
    data_bytes = size_bytes - local_bytes - directory_bytes - _ZIP_END.size
    # The drawn bytes depend on where they lie, so the sum is taken of them in their place.
    blank = Generated(size_bytes, seed)
    crc = 0
    for piece in blank.pieces(local_bytes, local_bytes + data_bytes):
        crc = zlib.crc32(piece, crc)
    local = _ZIP_LOCAL.pack(
        b"PK\x03\x04", 20, 0, 0, 0, 0x21, crc, data_bytes, data_bytes, len(_ZIP_NAME), 0
    )
    central = _ZIP_CENTRAL.pack(
        *(b"PK\x01\x02", 20, 20, 0, 0, 0, 0x21, crc, data_bytes, data_bytes, len(_ZIP_NAME)),
        *(0, 0, 0, 0, 0, 0),
    )
    end = _ZIP_END.pack(b"PK\x05\x06", 0, 0, 1, 1, directory_bytes, local_bytes + data_bytes, 0)
    return Generated(size_bytes, seed, head=local + _ZIP_NAME, tail=central + _ZIP_NAME + end)


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
