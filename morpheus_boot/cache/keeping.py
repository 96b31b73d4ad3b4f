"""Whose models gc must keep: asked before each removal, and read again only where something has changed."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.lock.workers import volume_time, worker_age_s
from morpheus_boot.cache.manifests import EndpointManifest, manifest_files, read_manifest_file
from morpheus_boot.volume.layout import Layout

WORKER_KEEPS_S: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class _Known:
    """A manifest as it was read; ``stamp`` is what shows that it is another by now."""

    stamp: tuple[int, int, int]
    manifest: EndpointManifest


class Keeping:
    """The manifests that count: an endpoint's always, a worker's for 7 days after its last beat.

    Those of ``forgotten`` endpoints don't. ``now`` is the time by the volume's clock. Every method looks at the volume,
    and raises StorageFailed where a manifest can't be read as such, and OSError.
    """

    def __init__(self, layout: Layout, forgotten: Collection[str] = ()) -> None:
        self._layout = layout
        self._forgotten = forgotten
        self._known: dict[Path, _Known] = {}
        # Who has beaten within the 7 days by ``now`` will have done so at every later look.
        self._living: set[str] = set()
        self.now = volume_time(layout)

    def all(self) -> tuple[EndpointManifest, ...]:
        """All manifests, whether they count or not."""
        self._look()
        return tuple(known.manifest for known in self._known.values())

    def manifests(self) -> tuple[EndpointManifest, ...]:
        """Those that count."""
        return tuple(m for m in self.all() if m.endpoint not in self._forgotten and self._lives(m))

    def paths(self) -> frozenset[str]:
        """The models that they name."""
        return frozenset(model.path for manifest in self.manifests() for model in manifest.models)

    def of_gone_workers(self) -> tuple[Path, ...]:
        """The files of manifests that count no more, since their worker is gone."""
        self._look()
        return tuple(path for path, known in self._known.items() if not self._lives(known.manifest))

    def is_back(self, worker: str) -> bool:
        """Whether a worker has given a sign of life within the 7 days."""
        if worker not in self._living:
            age_s = worker_age_s(self._layout, worker, self.now)
            if age_s is None or age_s >= WORKER_KEEPS_S:
                return False
            self._living.add(worker)
        return True

    def _lives(self, manifest: EndpointManifest) -> bool:
        return manifest.worker is None or self.is_back(manifest.worker)

    def _look(self) -> None:
        found: dict[Path, _Known] = {}
        for path in manifest_files(self._layout):
            known = self._known.get(path)
            if known is None or known.stamp != _stamp(path):
                known = _read(path)
            if known is not None:
                found[path] = known
        self._known = found


def _read(path: Path) -> _Known | None:
    # The stamp first: what is written while it is read has another one then, and is read again.
    stamp = _stamp(path)
    manifest = read_manifest_file(path)
    return None if stamp is None or manifest is None else _Known(stamp, manifest)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
