"""Reads a cached model again and compares it with its record; changes nothing."""

import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from morpheus_boot.cache.adopt import sha256_of
from morpheus_boot.cache.records import Record, read_record
from morpheus_boot.volume.layout import Layout


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
class Sight:
    """What a verdict is about: the record and the file's size and mtime (None: no file), as they were then."""

    record: Record | None
    size_bytes: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One cached model, read again. ``detail``: why, or the SHA-256 of one that is whole."""

    path: str
    condition: Condition
    detail: str
    sight: Sight


def look(layout: Layout, model_path: str) -> Sight:
    """What is there of a model now. Raises OSError."""
    record = read_record(layout, model_path)
    return Sight(None) if record is None else _look(layout, record)


def judge(
    layout: Layout,
    record: Record,
    stopping: threading.Event,
    on_read: Callable[[int], None] = lambda _count: None,
) -> Verdict:
    """Reads the model of ``record``; ``on_read`` is told of each piece how many bytes it has.

    Raises OSError; Stopped.
    """
    sight = _look(layout, record)
    condition, detail = _complaint(record, sight) or (Condition.WHOLE, "")
    expected = record.sha256 or record.expected_sha256
    if condition is Condition.WHOLE:
        detail = sha256_of(file_of(layout, record), stopping, on_read)
        if detail != expected:
            condition = Condition.DAMAGED
            detail = f"its SHA-256 is {detail} instead of {expected}"
    return Verdict(record.path, condition, detail, sight)


def _complaint(record: Record, sight: Sight) -> tuple[Condition, str] | None:
    """What is to be said without reading the file."""
    if sight.size_bytes is None:
        gone = "its file is gone" if record.hub_file is None else "RunPod's cache has it no more"
        return Condition.MISSING, gone
    if sight.size_bytes != record.size_bytes:
        return Condition.DAMAGED, f"{sight.size_bytes} bytes instead of {record.size_bytes}"
    if record.damaged:
        return Condition.DAMAGED, "its bytes were found damaged before"
    if record.sha256 is None and record.expected_sha256 is None:
        return Condition.UNRECORDED, "its SHA-256 is not recorded yet"
    return None


def file_of(layout: Layout, record: Record) -> Path:
    """Where the file of a record lies: below model_cache/, or in RunPod's own cache."""
    return layout.model(record.path) if record.hub_file is None else layout.root / record.hub_file


def _look(layout: Layout, record: Record) -> Sight:
    try:
        found = file_of(layout, record).stat()
    except (FileNotFoundError, NotADirectoryError):
        return Sight(record)
    if not stat.S_ISREG(found.st_mode):
        return Sight(record)
    return Sight(record, found.st_size, found.st_mtime_ns)
