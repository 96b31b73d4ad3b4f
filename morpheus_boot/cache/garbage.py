"""What no endpoint needs any more: models, parts, locks, archives. Finding and removing are apart.

Workers and file servers are at work meanwhile: what has gone since it was seen is passed over.
"""

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.keeping import WORKER_KEEPS_S, Keeping
from morpheus_boot.cache.lock.lock import held_if_free
from morpheus_boot.volume.journal import journal_of
from morpheus_boot.volume.layout import Layout, model_key
from morpheus_boot.volume.publish import is_temporary

_PART_KEEPS_S: Final = 7 * 86_400.0
_ARCHIVE_KEEPS_S: Final = 30 * 86_400.0
_TEMPORARY_KEEPS_S: Final = 86_400.0
_KEYED: Final = re.compile(r"([0-9a-f]{32})\..+")


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing to remove: what it is, why, and its bytes. ``key``: of the model whose lock guards it."""

    kind: str
    path: Path
    reason: str
    size_bytes: int
    key: str | None = None


def find_garbage(layout: Layout, own_paths: Iterable[str], keeping: Keeping) -> tuple[Garbage, ...]:
    """Everything that may go. ``own_paths``: the models of the manifest at hand, kept too.

    Raises StorageFailed, OSError.
    """
    kept = keeping.paths() | frozenset(own_paths)
    now = keeping.now
    return (
        *_models(layout, kept),
        *_parts(layout, {model_key(path) for path in kept}, now),
        *_journals(layout),
        *_locks(layout, {model_key(path) for path in kept}),
        *_archives(layout, now),
        *_workers(layout, keeping),
        *_temporaries(layout, now),
    )


def remove(layout: Layout, garbage: Garbage, keeping: Keeping) -> bool:
    """Removes one thing; False where a worker holds its model, or an endpoint or a worker needs it, by now.

    Raises StorageFailed, OSError.
    """
    if garbage.key is None:
        if _is_needed(layout, garbage, keeping):
            return False
        garbage.path.unlink(missing_ok=True)
        if garbage.kind == "archive":
            garbage.path.with_name(f"{garbage.path.name}.sha256").unlink(missing_ok=True)
        return True
    with held_if_free(layout, garbage.key) as free:
        if not free or _is_needed(layout, garbage, keeping):
            return False
        garbage.path.unlink(missing_ok=True)
        if garbage.kind == "part":
            journal_of(garbage.path).unlink(missing_ok=True)
        if garbage.kind == "model":
            (layout.records / f"{garbage.key}.json").unlink(missing_ok=True)
    return True


def _is_needed(layout: Layout, garbage: Garbage, keeping: Keeping) -> bool:
    match garbage.kind:
        case "model":
            return garbage.path.relative_to(layout.model_cache).as_posix() in keeping.paths()
        case "worker":
            return keeping.is_back(garbage.path.stem)
        case "manifest":
            return any(m.endpoint == garbage.path.stem for m in keeping.manifests())
        case _:
            return False


def _models(layout: Layout, kept: frozenset[str]) -> Iterator[Garbage]:
    for path, found in _files_below(layout.model_cache):
        name = path.relative_to(layout.model_cache).as_posix()
        if name not in kept:
            yield Garbage("model", path, "no manifest names it", found.st_size, model_key(name))


def _parts(layout: Layout, kept: set[str], now: float) -> Iterator[Garbage]:
    for path, key, found in _keyed_in(layout.parts, ".part"):
        if key not in kept:
            yield Garbage("part", path, "no manifest names its model", found.st_size, key)
        elif now - found.st_mtime > _PART_KEEPS_S:
            yield Garbage("part", path, "nobody has gone on with it for 7 days", found.st_size, key)


def _journals(layout: Layout) -> Iterator[Garbage]:
    for path, key, found in _keyed_in(layout.parts, ".journal"):
        if not path.with_suffix(".part").exists():
            yield Garbage("journal", path, "its part is gone", found.st_size, key)


def _locks(layout: Layout, kept: set[str]) -> Iterator[Garbage]:
    for path, key, _ in _keyed_in(layout.locks):
        if key not in kept:
            yield Garbage("lock", path, "no manifest names its model", 0, key)


def _archives(layout: Layout, now: float) -> Iterator[Garbage]:
    """Packed trees that no boot has unpacked for long: their mtime says, to the day, when one last did."""
    for path, found in _files_below(layout.archives, ".tar.gz"):
        if now - found.st_mtime > _ARCHIVE_KEEPS_S:
            yield Garbage("archive", path, "no boot has used it for 30 days", found.st_size)


def _workers(layout: Layout, keeping: Keeping) -> Iterator[Garbage]:
    """Heartbeats of workers that are long gone, and the manifests that belonged to them alone."""
    for path, found in _files_below(layout.workers, ".json"):
        if keeping.now - found.st_mtime > WORKER_KEEPS_S:
            yield Garbage("worker", path, "no beat for 7 days", found.st_size)
    for path in keeping.of_gone_workers():
        found_now = _stat(path)
        if found_now is not None:
            yield Garbage("manifest", path, "its worker is gone", found_now.st_size)


def _temporaries(layout: Layout, now: float) -> Iterator[Garbage]:
    for path, found in _files_below(layout.ours, ".tmp", but=(layout.node_cache, layout.trash)):
        if is_temporary(path.name) and now - found.st_mtime > _TEMPORARY_KEEPS_S:
            yield Garbage("temporary", path, "its writer died", found.st_size)


def _keyed_in(folder: Path, ending: str = "") -> Iterator[tuple[Path, str, os.stat_result]]:
    """The files in ``folder`` that carry a model's key and end so, each with that key. Raises OSError."""
    for path, found in _files_below(folder, ending):
        keyed = _KEYED.fullmatch(path.name)
        if keyed is not None and path.parent == folder:
            yield path, keyed[1], found


def _files_below(
    folder: Path, ending: str = "", *, but: Collection[Path] = ()
) -> Iterator[tuple[Path, os.stat_result]]:
    """The regular files below ``folder`` whose names end so, in order, each with its stat. Raises OSError.

    What lies in the folders ``but`` is left out.
    """
    for root, folders, names in os.walk(folder, onerror=_raise_unless_gone):
        folders[:] = sorted(name for name in folders if Path(root, name) not in but)
        for name in sorted(names):
            path = Path(root, name)
            found = _stat(path) if name.endswith(ending) else None
            if found is not None and stat.S_ISREG(found.st_mode):
                yield path, found


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
