"""Models that are read again: records the digests that are missing, and has what is damaged fetched anew."""

import logging
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from morpheus_boot.cache import fill
from morpheus_boot.cache.filler import model_lock
from morpheus_boot.cache.options import FillContext
from morpheus_boot.cache.planner import CachedModel, make_plan
from morpheus_boot.cache.reading import sha256_of
from morpheus_boot.cache.records import Record, read_record, write_record
from morpheus_boot.cache.reports import waiting
from morpheus_boot.errors import MorpheusError, storage_error
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.volume.layout import Layout

_LOG: Final = logging.getLogger("morpheus.cache")


class Condition(StrEnum):
    """What a second reading found."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNRECORDED = "unrecorded"
    REPAIRED = "repaired"


TO_REPAIR: Final = (Condition.DAMAGED, Condition.MISSING)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One recorded model, read again. ``detail``: why, or the SHA-256 of one that is whole.

    ``size_bytes``, ``mtime_ns``: of the file that was judged; None where there was none.
    """

    record: Record
    condition: Condition
    detail: str
    size_bytes: int | None = None
    mtime_ns: int | None = None

    @property
    def path(self) -> str:
        """The model's path below model_cache/."""
        return self.record.path


def judge(
    layout: Layout,
    record: Record,
    stopping: threading.Event,
    on_read: Callable[[int], None] = lambda _count: None,
) -> Verdict:
    """Reads the model of ``record``, and changes nothing; ``on_read`` is told of each piece how many bytes it has.

    Raises OSError; Stopped.
    """
    size_bytes, mtime_ns = _look(layout, record)
    expected = record.sha256 or record.expected_sha256
    if size_bytes is None:
        condition = Condition.MISSING
        detail = "its file is gone" if record.hub_file is None else "RunPod's cache has it no more"
    elif size_bytes != record.size_bytes:
        condition, detail = Condition.DAMAGED, f"{size_bytes} bytes instead of {record.size_bytes}"
    elif record.damaged:
        condition, detail = Condition.DAMAGED, "its bytes were found damaged before"
    elif expected is None:
        condition, detail = Condition.UNRECORDED, "its SHA-256 is not recorded yet"
    else:
        condition, detail = Condition.WHOLE, sha256_of(file_of(layout, record), stopping, on_read)
        if detail != expected:
            condition = Condition.DAMAGED
            detail = f"its SHA-256 is {detail} instead of {expected}"
    return Verdict(record, condition, detail, size_bytes, mtime_ns)


def file_of(layout: Layout, record: Record) -> Path:
    """Where the file of a record lies: below model_cache/, or in RunPod's own cache."""
    return layout.model(record.path) if record.hub_file is None else layout.root / record.hub_file


def repair(model: ModelSpec, verdict: Verdict, context: FillContext) -> Verdict:
    """Has the model fetched anew, once no other worker holds it; returns what is so then.

    What has changed since the verdict is read again first: another worker may have repaired it.
    Raises MorpheusError, WaitedTooLong where another held it too long; Stopped.
    """
    layout, lock = context.layout, model_lock(model.path, context)
    try:
        with lock.claim(context.stopping, lambda: context.report(waiting(model, lock.holder))):
            record = read_record(layout, model.path)
            if record is not None and not _still_holds(layout, verdict):
                again = judge(layout, record, context.stopping)
                if again.condition not in TO_REPAIR:
                    return again
            if record is not None:
                write_record(layout, replace(record, damaged=True))
        _fetch_anew(model, context)
    except OSError as error:
        raise storage_error(model.path, layout.model(model.path), error) from error
    return replace(verdict, condition=Condition.REPAIRED)


def confirm(verdict: Verdict, context: FillContext) -> None:
    """Records that a model is whole, where its record does not say so yet, so that no boot reads it again.

    Left out where a worker is at it, or where the volume can't be written.
    """
    record, layout = verdict.record, context.layout
    if verdict.mtime_ns is None or record.hub_file is not None:
        return
    confirmed = _hashed(record, verdict.detail, verdict.mtime_ns)
    if confirmed == record:
        return
    try:
        claim = model_lock(record.path, context).try_claim()
        if claim is None:
            return
        with claim:
            if _still_holds(layout, verdict):
                write_record(layout, confirmed)
    except OSError as error:
        _LOG.warning("%s: its record stays as it was (%s)", verdict.path, error.strerror)


def hash_pending(models: Iterable[CachedModel], context: FillContext) -> None:
    """Records the digest of each adopted or moved model; one that proves damaged is fetched anew.

    A model that another worker holds is left to it. Failures are logged: nothing waits for this.
    Raises Stopped.
    """
    for cached in models:
        try:
            if not _hash(cached, context):
                _fetch_anew(cached.model, context)
        except (MorpheusError, OSError) as error:
            _LOG.warning("%s: not hashed, %s", cached.model.path, error)


def _hash(cached: CachedModel, context: FillContext) -> bool:
    """Records the model's digest, unless a worker is at it; False: it is recorded as damaged."""
    model, layout = cached.model, context.layout
    claim = model_lock(model.path, context).try_claim()
    if claim is None:
        return True
    with claim:
        record = read_record(layout, model.path)
        mtime_ns = cached.file.stat().st_mtime_ns
        if record is None or (record.sha256 is not None and record.mtime_ns == mtime_ns):
            return True
        digest = sha256_of(cached.file, context.stopping)
        expected = model.sha256 or record.sha256 or record.expected_sha256
        if expected in (None, digest):
            write_record(layout, _hashed(record, digest, mtime_ns))
            _LOG.info("%s: hashed, sha256 %s", model.path, digest)
            return True
        _LOG.warning(
            "%s: damaged (its SHA-256 is %s instead of %s), fetched anew; restart any ComfyUI that has loaded it",
            model.path,
            digest,
            expected,
        )
        write_record(layout, replace(record, damaged=True))
        return False


def _fetch_anew(model: ModelSpec, context: FillContext) -> None:
    """Brings in a model whose record says that it is damaged. Raises MorpheusError, Stopped, OSError."""
    fill(make_plan((model,), context.layout, context.options.hub_roots), context)


def _hashed(record: Record, digest: str, mtime_ns: int) -> Record:
    return replace(record, sha256=digest, expected_sha256=None, mtime_ns=mtime_ns)


def _still_holds(layout: Layout, verdict: Verdict) -> bool:
    """Whether record and file are what was judged. Raises OSError."""
    record = verdict.record
    return read_record(layout, record.path) == record and _look(layout, record) == (
        verdict.size_bytes,
        verdict.mtime_ns,
    )


def _look(layout: Layout, record: Record) -> tuple[int | None, int | None]:
    """The size and mtime of a record's file; None where it is not there. Raises OSError."""
    try:
        found = file_of(layout, record).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (None, None)
