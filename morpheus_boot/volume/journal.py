"""The journal beside a part: what the part is of, and which ranges of it are finished.

The first line is a JSON document, each other one a finished range, ``[begin,end]``. It names only what was fsynced: on
MooseFS a successful write means nothing, since a quota shows at fsync or close. Lines are only ever added: another
host sees that within 10 ms there, but a file that was replaced after a second alone. A line that is torn is none.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from morpheus_boot.volume.documents import from_document, to_document
from morpheus_boot.volume.ranges import RangeSet

Head = TypeVar("Head")


@dataclass(frozen=True, slots=True)
class Journal(Generic[Head]):
    """What a journal says of its part. ``whole_bytes``: the length of its lines up to one that a kill cut off.

    ``touched_at``: its mtime, in seconds of the volume's clock.
    """

    head: Head
    done: tuple[range, ...]
    whole_bytes: int
    touched_at: float

    @property
    def done_bytes(self) -> int:
        """The number of finished bytes."""
        return sum(map(len, self.done))

    @property
    def front(self) -> int:
        """The number of finished bytes from the beginning on."""
        return RangeSet(self.done).front


def journal_of(part: Path) -> Path:
    """The journal beside a part."""
    return part.with_suffix(".journal")


def read_journal(part: Path, kind: type[Head]) -> Journal[Head] | None:
    """The journal beside ``part``, whose first line is a ``kind``; None where there is none that can be read.

    Raises OSError other than not found.
    """
    try:
        with journal_of(part).open("rb") as file:
            touched_at = os.fstat(file.fileno()).st_mtime
            lines = file.read().splitlines(keepends=True)
        head = from_document(kind, lines[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    if not lines[0].endswith(b"\n"):
        return None
    whole_bytes = len(lines[0])
    done = RangeSet()
    for line in lines[1:]:
        try:
            begin, end = json.loads(line)
            done.add(range(begin, end))
        except (ValueError, TypeError):
            break
        if not line.endswith(b"\n"):
            break
        whole_bytes += len(line)
    return Journal(head, tuple(done), whole_bytes, touched_at)


def begin_journal(fd: int, head: object) -> None:
    """Writes the first line, durably, into the empty journal ``fd``. Raises OSError."""
    _append(fd, to_document(head) + b"\n")


def note_ranges(fd: int, ranges: Iterable[range]) -> None:
    """Says in the journal ``fd`` that ``ranges`` are finished, durably. Raises OSError."""
    _append(fd, b"".join(b"[%d,%d]\n" % (r.start, r.stop) for r in ranges))


def _append(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.fdatasync(fd)
