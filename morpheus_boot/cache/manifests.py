"""What each endpoint's models.yaml names, left on the volume: gc keeps it, and contradictions are found."""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.lock.workers import seen_worker
from morpheus_boot.errors import ManifestError, StorageFailed, all_of
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.volume.documents import from_document, to_document
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.publish import write_whole

_LOG: Final = logging.getLogger("morpheus.cache")
# A manifest that belongs to a worker, not to an endpoint, counts only while that worker may come back.
_WORKER_CONFLICTS_S: Final = 86_400.0
WORKER_KEEPS_S: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model as a manifest on the volume names it."""

    path: str
    origin: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class EndpointManifest:
    """One endpoint's models. ``worker``: set where it belongs to a single worker, a Pod without an endpoint."""

    endpoint: str
    worker: str | None
    models: tuple[NamedModel, ...]


def manifest_of(endpoint: str, worker: str, models: Iterable[ModelSpec]) -> EndpointManifest:
    """The manifest that this boot leaves."""
    named = tuple(NamedModel(m.path, m.source.identity, m.sha256) for m in models)
    return EndpointManifest(endpoint, worker if worker == endpoint else None, named)


def is_left(layout: Layout, manifest: EndpointManifest) -> bool:
    """Whether the manifest is there as it is. Raises OSError."""
    try:
        return _path(layout, manifest.endpoint).read_bytes() == to_document(manifest, indent=1)
    except FileNotFoundError:
        return False


def leave_manifest(layout: Layout, manifest: EndpointManifest) -> None:
    """Writes the manifest. Raises OSError."""
    write_whole(_path(layout, manifest.endpoint), to_document(manifest, indent=1))


def forget(layout: Layout, endpoint: str) -> None:
    """Removes an endpoint's manifest. Raises OSError."""
    _path(layout, endpoint).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Roots:
    """What gc begins with: the manifests that count, an endpoint's always, a worker's for 7 days after its last beat.

    Those of ``forgotten`` endpoints don't. ``now`` is the time by the volume's clock. Each method looks at the volume
    anew, and raises StorageFailed where a manifest can't be read as such, and OSError.
    """

    layout: Layout
    now: float
    forgotten: Collection[str] = ()

    def all(self) -> tuple[EndpointManifest, ...]:
        """All manifests, whether they count or not."""
        return tuple(filter(None, map(_read, _files(self.layout))))

    def manifests(self) -> tuple[EndpointManifest, ...]:
        """Those that count."""
        left = (m for m in self.all() if m.endpoint not in self.forgotten)
        return tuple(m for m in left if m.worker is None or self.lives(m.worker))

    def paths(self) -> frozenset[str]:
        """The models that these name."""
        return frozenset(model.path for manifest in self.manifests() for model in manifest.models)

    def lives(self, worker: str) -> bool:
        """Whether a worker has given a sign of life within the 7 days."""
        seen = seen_worker(self.layout, worker, self.now)
        return seen is not None and seen.age_s < WORKER_KEEPS_S


def require_no_conflict(layout: Layout, ours: EndpointManifest) -> None:
    """Raises ManifestError, naming both endpoints, where another names one of our paths with another origin.

    Asked only before something is fetched: two that disagree would fetch over each other for ever. One that can't be
    read is passed over with a warning, since its endpoint must not stop all the others. Raises OSError too.
    """
    mistakes: list[ManifestError] = []
    for path in _files(layout):
        try:
            other = _read(path)
        except StorageFailed as error:
            _LOG.warning("%s; its models are not compared with ours", error)
            continue
        if other is None or other.endpoint == ours.endpoint:
            continue
        contradictions = _contradictions(ours, other)
        if contradictions and _may_fetch(layout, other):
            mistakes += contradictions
    if mistakes:
        raise all_of(mistakes)


def _contradictions(ours: EndpointManifest, other: EndpointManifest) -> list[ManifestError]:
    own_models = {m.path: m for m in ours.models}
    pairs = ((own_models[m.path], m) for m in other.models if m.path in own_models)
    return [
        ManifestError(
            theirs.path,
            f"endpoint {ours.endpoint} takes it from {own.origin}, "
            f"endpoint {other.endpoint} from {theirs.origin}",
            "give one of them another path, or both one origin "
            f"(an endpoint that is gone: gc --forget {other.endpoint} --apply)",
        )
        for own, theirs in pairs
        if own.origin != theirs.origin and not (own.sha256 and own.sha256 == theirs.sha256)
    ]


def _may_fetch(layout: Layout, manifest: EndpointManifest) -> bool:
    if manifest.worker is None:
        return True
    seen = seen_worker(layout, manifest.worker)
    # A worker that ended in good order fetches nothing any more.
    return seen is not None and not seen.ended and seen.age_s < _WORKER_CONFLICTS_S


def _path(layout: Layout, endpoint: str) -> Path:
    return layout.manifests / f"{endpoint}.json"


def _files(layout: Layout) -> list[Path]:
    return sorted(layout.manifests.glob("*.json"))


def _read(path: Path) -> EndpointManifest | None:
    """The manifest at ``path``; None where it was forgotten meanwhile.

    Raises:
        StorageFailed: it can't be read as such; whoever went on without it would remove its models.
        OSError: the volume fails.
    """
    try:
        return from_document(EndpointManifest, path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StorageFailed(
            str(path),
            f"it is no manifest that this version can read ({error})",
            "update this program, or remove the file if its endpoint is gone",
        ) from error
