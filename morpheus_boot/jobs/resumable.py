"""Uploads that are gone on with later, by any server of the volume: what of them is durable, and who writes.

Each is a part with its journal in ``.morpheus/tus/``. The part becomes the job's file by one rename, so a journal
without a part is an upload that is complete.
"""

import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.lock.workers import volume_time
from morpheus_boot.errors import Exit, MorpheusError, storage_error
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.uploads import PART, Target, UploadPart, remove_unless_locked
from morpheus_boot.volume.journal import Journal, journal_of, read_journal
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.part import Part, remove_part

_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


class NoSuchUpload(MorpheusError):
    """There is no such upload, or none any more."""

    exit_code = Exit.STORAGE

    def __init__(self) -> None:
        super().__init__("upload", "there is none of this id", "begin a new one")


class UploadExpired(MorpheusError):
    """Nobody has gone on with the upload for too long."""

    exit_code = Exit.STORAGE

    def __init__(self) -> None:
        super().__init__("upload", "it has expired", "begin a new one")


class UploadLocked(MorpheusError):
    """Another request writes the upload."""

    exit_code = Exit.STORAGE

    def __init__(self) -> None:
        super().__init__("upload", "another request writes it", "try again in a moment")


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """What was announced of an upload in several requests, and the client's metadata as it was sent."""

    size_bytes: int
    target: Target
    metadata: str


class ResumedPart(UploadPart):
    """The part of an upload that was gone on with: what is durable of it stays, whatever fails."""

    def __init__(self, layout: Layout, part: "Part[_Head]", offset_bytes: int) -> None:
        super().__init__(layout)
        self._path = part.path
        self._part = part
        self.size_bytes = offset_bytes

    def _append(self, chunks: Sequence[memoryview]) -> None:
        for chunk in chunks:
            self._part.write(self.size_bytes, chunk)
            self.size_bytes += len(chunk)

    def _sync(self) -> None:
        self._part.sync()

    def _finish(self) -> None:
        self._part.finish()

    def _close(self) -> None:
        self._part.touch()
        self._part.close()

    def _leave(self) -> None:
        try:
            self._part.sync()
        finally:
            self._part.close()


@dataclass(frozen=True, slots=True)
class UploadId:
    """The name of one upload's files. Raises NoSuchUpload for what can be none."""

    text: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.text):
            raise NoSuchUpload

    @classmethod
    def new(cls) -> "UploadId":
        """One that nobody has used."""
        return cls(secrets.token_hex(16))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ResumableUpload:
    """An upload as it stands: ``offset_bytes`` of it are durable; complete means that its file has its name.

    ``expires_at`` is in seconds since the epoch.
    """

    id: UploadId
    plan: UploadPlan
    offset_bytes: int
    is_complete: bool
    expires_at: float


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload to be gone on with; ``part`` None: it is complete. Whoever has it publishes the part or gives it up."""

    upload: ResumableUpload
    part: ResumedPart | None


@dataclass(frozen=True, slots=True)
class _Head:
    """A journal's first line: the plan."""

    size_bytes: int
    job: str
    sub_dir: tuple[str, ...]
    name: str
    metadata: str

    @classmethod
    def of(cls, plan: UploadPlan) -> "_Head":
        target = plan.target
        sub_dir, name = target.sub_dir.parts, target.name.text
        return cls(plan.size_bytes, target.job.text, sub_dir, name, plan.metadata)

    @property
    def plan(self) -> UploadPlan:
        target = Target(JobId(self.job), SubDir(self.sub_dir), FileName(self.name))
        return UploadPlan(self.size_bytes, target, self.metadata)


class UploadStore:
    """The volume's uploads in several requests. Its methods block, and may be called from any thread."""

    def __init__(self, layout: Layout, keeps_s: float) -> None:
        """So long after its last byte an upload expires, complete or not."""
        self._layout = layout
        self._keeps_s = keeps_s

    def create(self, plan: UploadPlan) -> ResumableUpload:
        """Begins an upload. Raises VolumeFull or StorageFailed; then nothing is left of it."""
        upload = UploadId.new()
        with self._storage():
            self._layout.resumable.mkdir(parents=True, exist_ok=True)
            Part(self._path(upload), _Head.of(plan)).close()
        return self.find(upload)

    def find(self, upload: UploadId) -> ResumableUpload:
        """How an upload stands. Raises NoSuchUpload, UploadExpired, StorageFailed."""
        with self._storage():
            # In this order: an upload that is removed in between loses its journal first.
            is_complete = not self._path(upload).exists()
            return self._as_told(upload, self._journal(upload), is_complete=is_complete)

    def open(self, upload: UploadId) -> OpenUpload:
        """Opens an upload for the only one who goes on with it.

        Raises NoSuchUpload, UploadExpired, UploadLocked, StorageFailed.
        """
        with self._storage():
            opened = self._open(upload)
        if opened is None:
            return OpenUpload(self.find(upload), None)
        seen, part = opened
        return OpenUpload(seen, ResumedPart(self._layout, part, seen.offset_bytes))

    def remove(self, upload: UploadId) -> None:
        """Ends an upload; the file of a complete one stays.

        Raises NoSuchUpload, UploadExpired, UploadLocked, StorageFailed.
        """
        with self._storage():
            opened = self._open(upload)
            if opened is not None:
                opened[1].discard()
            else:
                remove_part(self._path(upload))

    def sweep(self) -> int:
        """Removes what has expired, and what a server left that died in create(); returns how many.

        Raises StorageFailed.
        """
        folder = self._layout.resumable
        with self._storage():
            if not folder.exists():
                return 0
            before = volume_time(self._layout) - self._keeps_s
            names = {path.stem for path in folder.iterdir()}
            return sum(_swept(folder / f"{name}{PART}", before) for name in sorted(names))

    def _open(self, upload: UploadId) -> "tuple[ResumableUpload, Part[_Head]] | None":
        """The upload and its part; None where it is complete."""
        journal = self._journal(upload)
        seen = self._as_told(upload, journal, is_complete=False)
        try:
            return seen, Part(self._path(upload), journal.head, journal)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            raise UploadLocked from None

    def _path(self, upload: UploadId) -> Path:
        return self._layout.resumable / f"{upload}{PART}"

    def _journal(self, upload: UploadId) -> "Journal[_Head]":
        journal = read_journal(self._path(upload), _Head)
        if journal is None:
            raise NoSuchUpload
        return journal

    def _as_told(
        self, upload: UploadId, journal: "Journal[_Head]", *, is_complete: bool
    ) -> ResumableUpload:
        plan, expires_at = journal.head.plan, journal.touched_at + self._keeps_s
        if time.time() > expires_at:
            raise UploadExpired
        # Its last byte counts with its name alone: who is told all of them has the file.
        offset_bytes = plan.size_bytes if is_complete else min(journal.front, plan.size_bytes - 1)
        return ResumableUpload(upload, plan, max(0, offset_bytes), is_complete, expires_at)

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error("upload", self._layout.resumable, error) from error


def _swept(part: Path, before: float) -> bool:
    """Whether the upload was old, or begun by who died, and nobody writes it. Raises OSError."""
    with suppress(FileNotFoundError):
        # Whoever writes it makes its journal young.
        if journal_of(part).stat().st_mtime >= before:
            return False
    return remove_unless_locked(part)
