"""Takes over a file that the cache did not bring in itself, if it can be shown to be whole."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from morpheus_boot.cache.checks import complaint, proves_completeness
from morpheus_boot.cache.parts import Version
from morpheus_boot.errors import MorpheusError, OriginUnavailable
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.work.stopping import Stopped

_LOG: Final = logging.getLogger("morpheus.cache")
_HASH_BYTES: Final = 4 * 1024 * 1024


def is_whole(
    file: Path,
    model: ModelSpec,
    ask_origin: Callable[[], Version],
    stopping: threading.Event,
) -> tuple[str | None, Version | None]:
    """Why ``file`` can't be taken for the model (None: it can), and what the origin said, if it was asked.

    Its length must be the one in models.yaml or, failing that, the origin's; it must pass its check by type; and
    a sha256 in models.yaml must agree. Where the origin can't be asked, the type itself must prove completeness.

    Raises:
        OriginUnavailable: the origin can't be asked, and nothing else proves the file to be whole.
        Stopped: ``stopping`` was set.
        OSError: the file can't be read.
    """
    wrong = complaint(file, model.path)
    if wrong:
        return wrong, None
    size_bytes = file.stat().st_size
    version: Version | None = None
    expected = model.size_bytes
    if expected is None and model.sha256 is None:
        try:
            version = ask_origin()
            expected = version.size_bytes
        except MorpheusError as error:
            _require_proof(file, model, error)
            _LOG.warning(
                "%s: taken as it is, its origin can't be asked: %s", model.path, error.cause
            )
    if expected is not None and size_bytes != expected:
        return f"it has {size_bytes} bytes instead of {expected}", version
    if model.sha256 and sha256_of(file, stopping) != model.sha256:
        return "its SHA-256 is not the one in models.yaml", version
    return None, version


def _require_proof(file: Path, model: ModelSpec, error: MorpheusError) -> None:
    if not proves_completeness(file, model.path):
        raise OriginUnavailable(
            model.path,
            f"a file is there, but whether it is whole only its origin knows, and: {error.cause}",
            "give its size and sha256 in models.yaml, or make the origin reachable",
        ) from error


def sha256_of(
    file: Path, stopping: threading.Event, on_read: Callable[[int], None] = lambda _count: None
) -> str:
    """The SHA-256 of a file in hex; ``on_read`` is told of each piece how many bytes it has.

    Raises OSError; Stopped, where ``stopping`` is set before its end.
    """
    with file.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_HASH_BYTES))
        while count := stream.readinto(buffer):
            if stopping.is_set():
                raise Stopped
            digest.update(buffer[:count])
            on_read(count)
    return digest.hexdigest()
