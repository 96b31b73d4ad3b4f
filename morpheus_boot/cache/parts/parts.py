"""The parts of a model that lie on the volume: whose bytes can be gone on with, copied, or must go."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.parts.journal import Journal, Version, journal_of, read_journal
from morpheus_boot.cache.parts.part import Part
from morpheus_boot.cache.transfer.ranges import RangeSet
from morpheus_boot.volume.layout import Layout, model_key

_LOG: Final = logging.getLogger("morpheus.cache")
_COPY_BYTES: Final = 1 << 20


def kept_bytes(layout: Layout, model_path: str) -> int:
    """What a fill that did not come to its end has left of a model. Raises OSError."""
    return max((found.journal.done_bytes for found in _parts_of(layout, model_path)), default=0)


def open_part(
    layout: Layout, model_path: str, version: Version, *, inherits: bool, chunk_bytes: int
) -> Part:
    """The part to bring ``version`` in with.

    ``inherits``: the part of a dead worker is continued. Without it, a part of one's own is begun with a copy of
    what the silent worker's journal names, and the silent worker's part loses its name: should that worker come
    back, it can't publish an inode that two have written to. Where that can't be copied (it can't be read, or both
    don't fit), its part is begun anew. Parts of another version are dropped.
    ``chunk_bytes``: only whole multiples of it are copied.

    Raises OSError; an exhausted quota shows here already, where the part takes its full size.
    """
    layout.parts.mkdir(parents=True, exist_ok=True)
    found = sorted(_parts_of(layout, model_path), key=lambda f: -f.journal.done_bytes)
    usable = [f for f in found if _is_usable(f, version)]
    best = usable[0] if usable else None
    drop_parts(layout, model_path, but=best.path if best else None)
    if best is None:
        return _begin_part(layout, model_path, version)
    if inherits:
        with suppress(BlockingIOError):
            return Part(best.path, version, best.journal)
    try:
        return _begin_copy(layout, model_path, version, best, chunk_bytes)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        _LOG.warning(
            "%s: the part of a silent worker can't be copied (%s): begun anew", model_path, reason
        )
    finally:
        _remove(best.path)
    return _begin_part(layout, model_path, version)


def drop_parts(layout: Layout, model_path: str, *, but: Path | None = None) -> None:
    """Removes the parts of a model and journals that have lost theirs, ``but`` one. Raises OSError.

    Only for who has the model's claim.
    """
    for path in layout.parts.glob(f"{model_key(model_path)}.*"):
        if but is None or path not in (but, journal_of(but)):
            path.unlink(missing_ok=True)


def _begin_part(layout: Layout, model_path: str, version: Version) -> Part:
    path = layout.parts / f"{model_key(model_path)}.{secrets.token_hex(6)}.part"
    part: Part | None = None
    try:
        part = Part(path, version, None)
        part.restart()
    except OSError:
        if part is not None:
            part.discard()
        _remove(path)
        raise
    return part


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    journal: Journal


def _parts_of(layout: Layout, model_path: str) -> Iterator[_Found]:
    for path in layout.parts.glob(f"{model_key(model_path)}.*.part"):
        yield _Found(path, read_journal(journal_of(path)))


def _is_usable(found: _Found, version: Version) -> bool:
    journal = found.journal
    if journal.version is None or not version.continues(journal.version):
        return False
    # A part that is shorter than its journal says was cut behind our back.
    return not journal.done or found.path.stat().st_size >= journal.done[-1].stop


def _begin_copy(
    layout: Layout, model_path: str, version: Version, source: _Found, chunk_bytes: int
) -> Part:
    part = _begin_part(layout, model_path, version)
    try:
        _copy(source, part, chunk_bytes)
        if _still_names(source):
            part.sync()
        else:
            # The silent worker came back and began its part anew: what was copied may be holes.
            part.restart()
    except OSError:
        part.discard()
        raise
    return part


def _still_names(source: _Found) -> bool:
    now, then = read_journal(journal_of(source.path)), source.journal
    both = RangeSet((*now.done, *then.done))
    return now.version == then.version and both.size_bytes == now.done_bytes


def _copy(source: _Found, part: Part, chunk_bytes: int) -> None:
    buffer = memoryview(bytearray(_COPY_BYTES))
    fd = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Reading ahead into the chunk that the lost host was writing to would hang, too.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for done in _whole_chunks(source.journal.done, chunk_bytes):
            at = done.start
            while at < done.stop:
                count = os.preadv(fd, [buffer[: min(_COPY_BYTES, done.stop - at)]], at)
                if count == 0:
                    break
                part.write(at, buffer[:count])
                at += count
    finally:
        os.close(fd)


def _whole_chunks(done: tuple[range, ...], chunk_bytes: int) -> Iterator[range]:
    # MooseFS keeps a chunk (64 MiB) locked for two minutes once the host that was writing to it is lost, and whoever
    # reads it hangs for so long. A chunk that was synced as a whole is not written to any more.
    for r in done:
        begin = -(-r.start // chunk_bytes) * chunk_bytes
        end = r.stop // chunk_bytes * chunk_bytes
        if begin < end:
            yield range(begin, end)


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    journal_of(part).unlink(missing_ok=True)
