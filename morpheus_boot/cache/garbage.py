"""What no endpoint needs any more: models, parts, locks, archives. Finding and removing are apart.

Workers and file servers are at work meanwhile: what has gone since it was seen is passed over.
"""

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.lock.lock import held_if_free
from morpheus_boot.cache.manifests import Roots
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


def find_garbage(roots: Roots, own_paths: Iterable[str]) -> tuple[Garbage, ...]:
    """Everything that may go. ``own_paths``: the models of the manifest at hand, kept too.

    Raises StorageFailed, OSError.
    """
    layout = roots.layout
    kept = roots.paths() | frozenset(own_paths)
    keys = {model_key(path) for path in kept}
    return (
        *_models(layout, kept),
        *_parts(layout, keys, roots.now),
        *_journals(layout),
        *_locks(layout, keys),
        *_archives(layout, roots.now),
        *_workers(roots),
        *_temporaries(layout, roots.now),
    )


def remove(garbage: Garbage, roots: Roots) -> bool:
    """Removes one thing; False where a worker holds its model, or an endpoint or a worker needs it, by now.

    Raises StorageFailed, OSError.
    """
    layout, path = roots.layout, garbage.path
    with (
        held_if_free(layout, garbage.key) if garbage.key else nullcontext(enter_result=True) as free
    ):
        if not free or _is_needed(garbage, roots):
            return False
        path.unlink(missing_ok=True)
        match garbage.kind:
            case "archive":
                path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
            case "part":
                journal_of(path).unlink(missing_ok=True)
            case "model":
                (layout.records / f"{garbage.key}.json").unlink(missing_ok=True)
    return True


def _is_needed(garbage: Garbage, roots: Roots) -> bool:
    match garbage.kind:
        case "model":
            return garbage.path.relative_to(roots.layout.model_cache).as_posix() in roots.paths()
        case "worker" | "manifest":
            return roots.lives(garbage.path.stem)
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


def _workers(roots: Roots) -> Iterator[Garbage]:
    """Heartbeats of workers that are long gone, and the manifests that belonged to them alone."""
    for path, found in _files_below(roots.layout.workers, ".json"):
        if not roots.lives(path.stem):
            yield Garbage("worker", path, "no beat for 7 days", found.st_size)
    owners = {m.endpoint: m.worker for m in roots.all()}
    for path, found in _files_below(roots.layout.manifests, ".json"):
        owner = owners.get(path.stem)
        if owner is not None and not roots.lives(owner):
            yield Garbage("manifest", path, "its worker is gone", found.st_size)


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
