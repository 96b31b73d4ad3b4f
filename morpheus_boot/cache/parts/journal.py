"""The journal beside a part: which version the part holds bytes of, and which ranges of it are finished.

It names only what was fsynced: on MooseFS a successful write means nothing, since a quota shows at fsync or close.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from morpheus_boot.cache.transfer.ranges import RangeSet
from morpheus_boot.volume.documents import from_document


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


@dataclass(frozen=True, slots=True)
class Journal:
    """What a journal says: a version (None: it can't be read as a journal), the finished ranges.

    ``whole_bytes``: the length of its lines up to one that a kill cut off.
    """

    version: Version | None = None
    done: tuple[range, ...] = ()
    whole_bytes: int = 0

    @property
    def done_bytes(self) -> int:
        """The number of finished bytes."""
        return sum(len(r) for r in self.done)


def journal_of(part: Path) -> Path:
    """The journal beside a part."""
    return part.with_suffix(".journal")


def read_journal(path: Path) -> Journal:
    """The journal at ``path``, up to a line that a kill cut off. Raises OSError other than not found."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return Journal()
    version: Version | None = None
    ranges: list[range] = []
    whole_bytes = 0
    for line in lines:
        try:
            if version is None:
                version = from_document(Version, json.loads(line))
            elif line.endswith(b"\n"):
                begin, end = json.loads(line)
                ranges.append(range(begin, end))
        except (ValueError, TypeError):
            break
        if line.endswith(b"\n"):
            whole_bytes += len(line)
    return Journal(version, tuple(RangeSet(ranges)), whole_bytes) if whole_bytes else Journal()


def begin_journal(fd: int, version: Version) -> None:
    """Writes the first line, durably, into the empty journal ``fd``. Raises OSError."""
    _write_all(fd, json.dumps(asdict(version)).encode() + b"\n")
    os.fdatasync(fd)


def note_ranges(fd: int, ranges: Iterable[range]) -> None:
    """Says in the journal ``fd`` that ``ranges`` are finished, durably. Raises OSError."""
    _write_all(fd, b"".join(f"[{r.start},{r.stop}]\n".encode() for r in ranges))
    os.fdatasync(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
