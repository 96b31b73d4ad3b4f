"""Decides what must happen for each model, by stat and record alone: no network, nothing changed.

``plan`` prints the very Plan that ``fill`` and ``up`` carry out.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from morpheus_boot.cache.checks import complaint
from morpheus_boot.cache.hub_cache import HubFile, find_hub_file
from morpheus_boot.cache.records import Record, read_record
from morpheus_boot.errors import StorageFailed, storage_error
from morpheus_boot.manifest import HuggingFaceSource, ModelSpec
from morpheus_boot.volume.layout import Layout

_LOG: Final = logging.getLogger("morpheus.cache")
_NS_PER_S: Final = 10**9
# What is wrong with one path, not with the volume.
_OF_ONE_PATH: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.EACCES, errno.ENAMETOOLONG})


class Action(StrEnum):
    """What a model needs."""

    PRESENT = "present"
    RECHECK = (
        "recheck"  # there, but its mtime is not the recorded one: a volume moved by rsync or S3
    )
    ADOPT = "adopt"  # a file without a record: the old script's, or an operator's
    LINK = "link"  # RunPod's own Hugging Face cache has it
    FETCH = "fetch"
    REFETCH = "refetch"  # there, but not what models.yaml or its record says
    BLOCKED = "blocked"  # something that is not ours to remove is in its way


@dataclass(frozen=True, slots=True)
class Step:
    """What happens for one model, and why. ``file``: where it lies when that is done.

    ``found``: the file to adopt, where that lies elsewhere. ``hash_later``: no digest is recorded yet.
    ``mend``: what to do where it is blocked.
    """

    model: ModelSpec
    action: Action
    reason: str
    file: Path
    record: Record | None = None
    found: Path | None = None
    hub: HubFile | None = None
    hash_later: bool = False
    mend: str = ""

    @property
    def needs_bytes(self) -> bool:
        """Whether the origin must send the model."""
        return self.action in (Action.FETCH, Action.REFETCH)

    @property
    def obstacle(self) -> StorageFailed:
        """The error for a model that is blocked."""
        return StorageFailed(self.model.path, self.reason, self.mend)

    def as_cached(self) -> "CachedModel":
        """The model as it lies there, where nothing has to be done for it."""
        return CachedModel(self.model, self.file, self.hash_later)


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model that is there, whole, at ``file``. ``hash_later``: its digest is still to be recorded."""

    model: ModelSpec
    file: Path
    hash_later: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One step a model, in the order of models.yaml."""

    steps: tuple[Step, ...]

    @property
    def work(self) -> tuple[Step, ...]:
        """The steps in which something has to be done."""
        return tuple(s for s in self.steps if s.action is not Action.PRESENT)


def make_plan(models: Iterable[ModelSpec], layout: Layout, hub_roots: Iterable[Path] = ()) -> Plan:
    """Decides for all models. Raises OSError where the volume can't be read."""
    roots = tuple(hub_roots)
    return Plan(tuple(_decide_or_block(model, layout, roots) for model in models))


def _decide_or_block(model: ModelSpec, layout: Layout, hub_roots: tuple[Path, ...]) -> Step:
    try:
        return decide(model, layout, hub_roots)
    except OSError as error:
        if error.errno not in _OF_ONE_PATH:
            raise
        final = layout.model(model.path)
        failure = storage_error(model.path, final, error)
        return Step(model, Action.BLOCKED, failure.cause, final, mend=failure.mend)


def decide(model: ModelSpec, layout: Layout, hub_roots: tuple[Path, ...] = ()) -> Step:
    """Decides for one model. Raises OSError where the volume can't be read."""
    final = layout.model(model.path)
    record = read_record(layout, model.path)
    found = _lstat(final)
    if record is not None and record.hub_file is not None and found is None:
        hub_step = _recorded_hub_file(model, layout, record)
        if hub_step is not None:
            return hub_step
    if found is None:
        is_damaged = record is not None and record.hub_file is not None and record.damaged
        return _missing(model, layout, final, () if is_damaged else hub_roots)
    if stat.S_ISDIR(found.st_mode):
        mend = f"move {final} away"
        return Step(model, Action.BLOCKED, "a directory has its name", final, mend=mend)
    if not stat.S_ISREG(found.st_mode):
        return Step(model, Action.REFETCH, "not a regular file has its name", final)
    if record is None or record.hub_file is not None:
        return Step(model, Action.ADOPT, "a file without a record", final)
    return _recorded(model, final, record, found)


def as_it_lies(step: Step) -> CachedModel | None:
    """The model, where it is there as recorded or at least passes its check; None where something must be done.

    Raises StorageFailed where something that is not ours to remove is in its way; OSError.
    """
    match step.action:
        case Action.PRESENT:
            return step.as_cached()
        case Action.BLOCKED:
            raise step.obstacle
        case Action.RECHECK if complaint(step.file, step.model.path) is None:
            _LOG.warning(
                "%s: %s; it is hashed again in the background", step.model.path, step.reason
            )
            return step.as_cached()
        case _:
            return None


def _missing(model: ModelSpec, layout: Layout, final: Path, hub_roots: tuple[Path, ...]) -> Step:
    for cache in layout.old_caches():
        old = cache / model.path
        found = _lstat(old)
        if found is not None and stat.S_ISREG(found.st_mode):
            return Step(model, Action.ADOPT, f"an old cache has it ({old})", final, found=old)
    if isinstance(model.source, HuggingFaceSource):
        hub = find_hub_file(model.source, hub_roots)
        if hub is not None:
            return Step(model, Action.LINK, "RunPod's own cache has it", hub.path, hub=hub)
    return Step(model, Action.FETCH, "missing", final)


def _recorded(model: ModelSpec, final: Path, record: Record, found: os.stat_result) -> Step:
    wrong = _contradiction(model, record, found.st_size)
    if wrong:
        return Step(model, Action.REFETCH, wrong, final, record)
    # Whole seconds: not every copy of a volume keeps the nanoseconds.
    if found.st_mtime_ns // _NS_PER_S != record.mtime_ns // _NS_PER_S:
        reason = "its mtime is not the recorded one"
        return Step(model, Action.RECHECK, reason, final, record, hash_later=True)
    return Step(model, Action.PRESENT, "", final, record, hash_later=record.sha256 is None)


def _contradiction(model: ModelSpec, record: Record, size_bytes: int) -> str | None:
    """Why the file is not what its record or models.yaml says, or None."""
    same_content = model.sha256 is not None and model.sha256 == record.sha256
    sizes = f"it has {size_bytes} bytes"
    checks = (
        (record.damaged, "its bytes are damaged"),
        (size_bytes != record.size_bytes, f"{sizes}, its record says {record.size_bytes}"),
        (
            model.size_bytes not in (None, size_bytes),
            f"{sizes}, models.yaml says {model.size_bytes}",
        ),
        (
            None not in (model.sha256, record.sha256) and not same_content,
            "models.yaml names another sha256",
        ),
        (
            record.origin != model.source.identity and not same_content,
            f"models.yaml names another origin than {record.origin}",
        ),
    )
    return next((reason for wrong, reason in checks if wrong), None)


def _recorded_hub_file(model: ModelSpec, layout: Layout, record: Record) -> Step | None:
    path = layout.root / (record.hub_file or "")
    try:
        found = path.stat()
    except OSError:
        return None  # RunPod emptied its cache, or a link in it dangles
    same = found.st_size == record.size_bytes and record.origin == model.source.identity
    agrees = not (model.sha256 and record.sha256 and model.sha256 != record.sha256)
    is_whole = same and agrees and not record.damaged
    return Step(model, Action.PRESENT, "", path, record) if is_whole else None


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
