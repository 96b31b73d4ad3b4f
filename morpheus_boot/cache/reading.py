"""Reads whole models: for their digest, or into the page cache."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from morpheus_boot.work.stopping import Stopped

_LOG: Final = logging.getLogger("morpheus.cache")
_BUFFER_BYTES: Final = 4 * 1024 * 1024


def sha256_of(
    file: Path, stopping: threading.Event, on_read: Callable[[int], None] = lambda _count: None
) -> str:
    """The SHA-256 of a file in hex; ``on_read`` is told of each piece how many bytes it has.

    Raises OSError; Stopped, where ``stopping`` is set before its end.
    """
    digest = hashlib.sha256()
    for piece in _pieces(file):
        if stopping.is_set():
            raise Stopped
        digest.update(piece)
        on_read(len(piece))
    return digest.hexdigest()


def preload(files: Iterable[Path], stopping: threading.Event) -> None:
    """Reads each file once, in order, until ``stopping`` is set; a file that can't be read is only logged.

    While ComfyUI starts: by its own mmap over a network volume they would take far longer.
    """
    for path in files:
        try:
            for _ in _pieces(path):
                if stopping.is_set():
                    return
        except OSError as error:
            _LOG.warning("%s: not preloaded (%s)", path, error.strerror)


def _pieces(file: Path) -> Iterator[memoryview]:
    """The bytes of a file in order; each piece only until the next one. Raises OSError."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with file.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while count := stream.readinto(buffer):
            yield buffer[:count]
