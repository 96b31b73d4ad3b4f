"""The journal of an upload that may be gone on with: what was announced, and how many bytes of it are durable.

A line of JSON, then two slots of one size that are written in turns, in place: another host sees an fsync within
10 ms on MooseFS, but a file that was replaced after a second alone. A slot that is torn does not match its
checksum, and the other one counts.
"""

import errno
import json
import os
import zlib
from dataclasses import dataclass
from typing import Final

from morpheus_boot.jobs.names import FileName, InvalidName, JobId, SubDir
from morpheus_boot.jobs.part import make_durable

_SLOTS: Final = 2
# O_NONBLOCK: a FIFO in its place must not hang who opens it.
_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# More than the metadata can be: it came in a request's head.
_MOST_BYTES: Final = 4 * 2**20


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """What was announced: the whole size, where the file goes, and the client's metadata as it was sent."""

    size_bytes: int
    job: JobId
    sub_dir: SubDir
    name: FileName
    metadata: str


class Journal:
    """An open journal, as it was read; ``touched_at`` is its mtime. Whoever has it closes it."""

    def __init__(self, folder: int, name: str, *, writable: bool = False) -> None:
        """Raises FileNotFoundError where there is none, or none that is whole, and OSError."""
        self._fd = os.open(name, (os.O_RDWR if writable else os.O_RDONLY) | _FLAGS, dir_fd=folder)
        try:
            line, newline, slots = os.pread(self._fd, _MOST_BYTES, 0).partition(b"\n")
            self.plan = _plan(line)
            self._slots_at = len(line + newline)
            self._slot, self.offset_bytes = _newest(slots)
            self.touched_at = os.fstat(self._fd).st_mtime
        except OSError:
            self.close()
            raise

    @staticmethod
    def create(folder: int, name: str, plan: UploadPlan) -> None:
        """Makes one, with no bytes durable. Raises OSError; then it may be there in part."""
        line = json.dumps(
            {
                "size_bytes": plan.size_bytes,
                "job": plan.job.text,
                "sub_dir": plan.sub_dir.parts,
                "name": plan.name.text,
                "metadata": plan.metadata,
            }
        )
        # Both slots from the start: on a full volume the journal needs no more room.
        content = line.encode() + b"\n" + _slot_of(0) * _SLOTS
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644, dir_fd=folder)
        try:
            _write_at(fd, content, 0)
            make_durable(fd)
        finally:
            os.close(fd)

    def note(self, offset_bytes: int) -> None:
        """Says that so many bytes are durable, durably. Raises OSError."""
        slot = (self._slot + 1) % _SLOTS
        content = _slot_of(offset_bytes)
        _write_at(self._fd, content, self._slots_at + slot * len(content))
        make_durable(self._fd)
        self._slot, self.offset_bytes = slot, offset_bytes

    def touch(self) -> None:
        """Makes it young. Raises OSError."""
        os.utime(self._fd)

    def close(self) -> None:
        """Lets go of it."""
        os.close(self._fd)


def _plan(line: bytes) -> UploadPlan:
    try:
        told = json.loads(line)
        return UploadPlan(
            int(told["size_bytes"]),
            JobId(told["job"]),
            SubDir(tuple(told["sub_dir"])),
            FileName(told["name"]),
            str(told["metadata"]),
        )
    except (ValueError, KeyError, TypeError, InvalidName):
        raise _no_journal() from None


def _slot_of(offset_bytes: int) -> bytes:
    text = f"{offset_bytes:020d}".encode()
    return b"%s %08x\n" % (text, zlib.crc32(text))


def _newest(slots: bytes) -> tuple[int, int]:
    """The slot that counts, and its offset."""
    length = len(_slot_of(0))
    found = []
    for number in range(_SLOTS):
        slot = slots[number * length : (number + 1) * length]
        offset = slot[:20]
        if offset.isdigit() and slot == _slot_of(int(offset)):
            found.append((int(offset), number))
    if not found:
        raise _no_journal()
    offset_bytes, number = max(found)
    return number, offset_bytes


def _write_at(fd: int, content: bytes, at: int) -> None:
    while content:
        written = os.pwrite(fd, content, at)
        content, at = content[written:], at + written


def _no_journal() -> OSError:
    return FileNotFoundError(errno.ENOENT, "there is no whole journal")
