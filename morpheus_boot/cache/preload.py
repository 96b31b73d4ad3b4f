"""Reads models into the page cache while ComfyUI starts: by mmap over a network volume they take far longer."""

import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_LOG: Final = logging.getLogger("morpheus.cache")
_BUFFER_BYTES: Final = 4 * 1024 * 1024


def preload(files: Iterable[Path], stopping: threading.Event) -> None:
    """Reads each file once, in order, until ``stopping`` is set; a file that can't be read is only logged."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    for path in files:
        try:
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                while file.readinto(buffer) and not stopping.is_set():
                    pass
        except OSError as error:
            _LOG.warning("%s: not preloaded (%s)", path, error.strerror)
