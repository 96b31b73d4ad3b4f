"""The parts of a model that lie on the volume: whose bytes can be gone on with, copied, or must go."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from morpheus_boot.volume.journal import Journal, journal_of, read_journal
from morpheus_boot.volume.layout import Layout, model_key
from morpheus_boot.volume.part import Part, remove_part
from morpheus_boot.volume.ranges import RangeSet

_LOG: Final = logging.getLogger("morpheus.cache")
_COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Version:
    """What a part holds the bytes of. Two parts may share bytes only if their versions are the same.

    ``origin`` is without secrets; ``etag`` is a strong validator or None.
    """

    origin: str
    size_bytes: int | None
    sha256: str | None
    etag: str | None

    def continues(self, other: "Version") -> bool:
        """Whether bytes of ``other`` may stand in a part of this version."""
        if self.size_bytes is None or self.size_bytes != other.size_bytes:
            return False
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self.origin == other.origin and self.etag is not None and self.etag == other.etag


ModelPart: TypeAlias = Part[Version]


def kept_bytes(layout: Layout, model_path: str) -> int:
    """What a fill that did not come to its end has left of a model. Raises OSError."""
    return max((journal.done_bytes for _, journal in _parts_of(layout, model_path)), default=0)


def open_part(
    layout: Layout, model_path: str, version: Version, *, inherits: bool, chunk_bytes: int
) -> ModelPart:
    """The part to bring ``version`` in with.

    ``inherits``: the part of a dead worker is continued. Without it, a part of one's own is begun with a copy of
    what the silent worker's journal names, and the silent worker's part loses its name: should that worker come
    back, it can't publish an inode that two have written to. Where that can't be copied (it can't be read, or both
    don't fit), its part is begun anew. Parts of another version are dropped.
    ``chunk_bytes``: only whole multiples of it are copied.

    Raises OSError; an exhausted quota shows here already, where the part takes its full size.
    """
    layout.parts.mkdir(parents=True, exist_ok=True)
    usable = (each for each in _parts_of(layout, model_path) if _is_usable(*each, version))
    best = max(usable, key=lambda each: each[1].done_bytes, default=None)
    drop_parts(layout, model_path, but=best and best[0])
    if best is None:
        return _new_part(layout, model_path, version)
    found, journal = best
    if inherits:
        with suppress(BlockingIOError):
            return Part(found, version, journal, size_bytes=version.size_bytes)
    try:
        part = _new_part(layout, model_path, version)
        try:
            _copy(found, journal, part, chunk_bytes)
        except OSError:
            part.discard()
            raise
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        _LOG.warning(
            "%s: the part of a silent worker can't be copied (%s): begun anew", model_path, reason
        )
    else:
        return part
    finally:
        remove_part(found)
    return _new_part(layout, model_path, version)


def drop_parts(layout: Layout, model_path: str, *, but: Path | None = None) -> None:
    """Removes the parts of a model and journals that have lost theirs, ``but`` one. Raises OSError.

    Only for who has the model's claim.
    """
    for path in layout.parts.glob(f"{model_key(model_path)}.*"):
        if but is None or path not in (but, journal_of(but)):
            path.unlink(missing_ok=True)


def _new_part(layout: Layout, model_path: str, version: Version) -> ModelPart:
    path = layout.parts / f"{model_key(model_path)}.{secrets.token_hex(6)}.part"
    return Part(path, version, size_bytes=version.size_bytes)


def _parts_of(layout: Layout, model_path: str) -> Iterator[tuple[Path, Journal[Version]]]:
    for path in layout.parts.glob(f"{model_key(model_path)}.*.part"):
        journal = read_journal(path, Version)
        if journal is not None:
            yield path, journal


def _is_usable(path: Path, journal: Journal[Version], version: Version) -> bool:
    # A part that is shorter than its journal says was cut behind our back.
    ends_at = journal.done[-1].stop if journal.done else 0
    return version.continues(journal.head) and path.stat().st_size >= ends_at


def _copy(source: Path, journal: Journal[Version], part: ModelPart, chunk_bytes: int) -> None:
    buffer = memoryview(bytearray(_COPY_BYTES))
    with source.open("rb", buffering=0) as file:
        # Reading ahead into the chunk that the lost host was writing to would hang, too.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for done in _whole_chunks(journal.done, chunk_bytes):
            for at in range(done.start, done.stop, _COPY_BYTES):
                want = buffer[: min(_COPY_BYTES, done.stop - at)]
                part.write(at, want[: os.preadv(file.fileno(), [want], at)])
    now = read_journal(source, Version)
    names = RangeSet((*now.done, *journal.done)).size_bytes if now else None
    if now and now.head == journal.head and names == now.done_bytes:
        part.sync()
    else:
        # The silent worker came back and began its part anew: what was copied may be holes.
        part.restart()


def _whole_chunks(done: tuple[range, ...], chunk_bytes: int) -> Iterator[range]:
    # MooseFS keeps a chunk (64 MiB) locked for two minutes once the host that was writing to it is lost, and whoever
    # reads it hangs for so long. A chunk that was synced as a whole is not written to any more.
    for r in done:
        begin = -(-r.start // chunk_bytes) * chunk_bytes
        end = r.stop // chunk_bytes * chunk_bytes
        if begin < end:
            yield range(begin, end)
