"""What no endpoint needs any more: models, parts, locks, old jobs. Finding and removing are apart."""

import json
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.lock import held_if_free
from morpheus_boot.cache.manifests import (
    WORKER_KEEPS_S,
    is_kept,
    kept_paths,
    read_manifests,
)
from morpheus_boot.cache.part import journal_of
from morpheus_boot.layout import Layout, is_job_id, model_key
from morpheus_boot.workers import volume_time

_PART_KEEPS_S: Final = 7 * 86_400.0
_ARCHIVE_KEEPS_S: Final = 30 * 86_400.0
_TEMPORARY_KEEPS_S: Final = 86_400.0
_UNFINISHED: Final = frozenset({"queued", "running"})


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing to remove: what it is, why, and its bytes. ``key``: of the model whose lock guards it."""

    kind: str
    path: Path
    reason: str
    size_bytes: int
    key: str | None = None


def find_garbage(
    layout: Layout,
    own_paths: Iterable[str],
    *,
    forgotten: Collection[str],
    jobs_older_than_h: float | None,
) -> tuple[Garbage, ...]:
    """Everything that may go. ``own_paths``: the models of the manifest at hand, kept too.

    Endpoints that are ``forgotten`` keep nothing any more. Raises OSError.
    """
    kept = kept_paths(layout, forgotten) | frozenset(own_paths)
    now = volume_time(layout)
    found = [
        *_models(layout, kept),
        *_parts(layout, {model_key(path) for path in kept}, now),
        *_journals(layout),
        *_locks(layout, {model_key(path) for path in kept}),
        *_archives(layout, now),
        *_workers(layout, now),
        *_temporaries(layout, now),
    ]
    if jobs_older_than_h is not None:
        found += _jobs(layout, now - jobs_older_than_h * 3600)
    return tuple(found)


def remove(layout: Layout, garbage: Garbage, *, forgotten: Collection[str] = ()) -> bool:
    """Removes one thing; False where a worker holds its model, or an endpoint names it, by now. Raises OSError."""
    if garbage.kind == "job":
        shutil.rmtree(garbage.path)
        return True
    if garbage.key is None:
        garbage.path.unlink(missing_ok=True)
        if garbage.kind == "archive":
            garbage.path.with_name(f"{garbage.path.name}.sha256").unlink(missing_ok=True)
        return True
    with held_if_free(layout, garbage.key) as free:
        if not free or (garbage.kind == "model" and _is_named(layout, garbage, forgotten)):
            return False
        garbage.path.unlink(missing_ok=True)
        if garbage.kind == "part":
            journal_of(garbage.path).unlink(missing_ok=True)
        if garbage.kind == "model":
            (layout.records / f"{garbage.key}.json").unlink(missing_ok=True)
    return True


def _is_named(layout: Layout, garbage: Garbage, forgotten: Collection[str]) -> bool:
    return garbage.path.relative_to(layout.model_cache).as_posix() in kept_paths(layout, forgotten)


def _models(layout: Layout, kept: frozenset[str]) -> Iterator[Garbage]:
    for path in sorted(layout.model_cache.rglob("*")):
        name = path.relative_to(layout.model_cache).as_posix()
        if name not in kept and path.is_file() and not path.is_symlink():
            size_bytes = path.stat().st_size
            yield Garbage("model", path, "no manifest names it", size_bytes, model_key(name))


def _parts(layout: Layout, kept: set[str], now: float) -> Iterator[Garbage]:
    for path in sorted(layout.parts.glob("*.part")):
        key = path.name.partition(".")[0]
        stat = path.stat()
        if key not in kept:
            yield Garbage("part", path, "no manifest names its model", stat.st_size, key)
        elif now - stat.st_mtime > _PART_KEEPS_S:
            yield Garbage("part", path, "nobody has gone on with it for 7 days", stat.st_size, key)


def _journals(layout: Layout) -> Iterator[Garbage]:
    for path in sorted(layout.parts.glob("*.journal")):
        if not path.with_suffix(".part").exists():
            key = path.name.partition(".")[0]
            yield Garbage("journal", path, "its part is gone", path.stat().st_size, key)


def _locks(layout: Layout, kept: set[str]) -> Iterator[Garbage]:
    for path in sorted(layout.locks.iterdir() if layout.locks.is_dir() else ()):
        key = path.name.partition(".")[0]
        # A name that begins with a dot is a heartbeat that is being written.
        if key and key not in kept:
            yield Garbage("lock", path, "no manifest names its model", 0, key)


def _archives(layout: Layout, now: float) -> Iterator[Garbage]:
    """Packed trees that no boot has unpacked for long: their mtime says, to the day, when one last did."""
    for path in sorted(layout.archives.rglob("*.tar.gz")):
        stat = path.stat()
        if now - stat.st_mtime > _ARCHIVE_KEEPS_S:
            yield Garbage("archive", path, "no boot has used it for 30 days", stat.st_size)


def _workers(layout: Layout, now: float) -> Iterator[Garbage]:
    """Heartbeats of workers that are long gone, and the manifests that belonged to them alone."""
    for path in sorted(layout.workers.glob("*.json")):
        if now - path.stat().st_mtime > WORKER_KEEPS_S:
            yield Garbage("worker", path, "no beat for 7 days", path.stat().st_size)
    for manifest in read_manifests(layout):
        if manifest.worker is not None and not is_kept(layout, manifest):
            path = layout.manifests / f"{manifest.endpoint}.json"
            yield Garbage("manifest", path, "its worker is gone", path.stat().st_size)


def _temporaries(layout: Layout, now: float) -> Iterator[Garbage]:
    for path in sorted(layout.ours.rglob(".*")):
        if path.is_file() and now - path.stat().st_mtime > _TEMPORARY_KEEPS_S:
            yield Garbage("temporary", path, "its writer died", path.stat().st_size)


def _jobs(layout: Layout, before: float) -> Iterator[Garbage]:
    for job in sorted(layout.jobs.iterdir() if layout.jobs.is_dir() else ()):
        if not is_job_id(job.name) or job.is_symlink() or not job.is_dir():
            continue
        touched = _touched_at(job)
        if touched < before and not _is_unfinished(job / "job.json"):
            size_bytes = sum(f.lstat().st_size for f in job.rglob("*"))
            yield Garbage("job", job, "untouched for so long", size_bytes)


def _touched_at(job: Path) -> float:
    """The newest mtime of a job's folder, its input, output and job.json: four stats, no walk."""
    places = (job, job / "input", job / "output", job / "job.json")
    return max(place.stat().st_mtime for place in places if place.exists())


def _is_unfinished(job_json: Path) -> bool:
    try:
        return json.loads(job_json.read_bytes()).get("status") in _UNFINISHED
    except (OSError, ValueError, AttributeError):
        return False
