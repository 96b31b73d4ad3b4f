"""What each endpoint's models.yaml names, left on the volume: gc keeps it, and contradictions are found."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.lock.workers import seen_worker, volume_time
from morpheus_boot.errors import ManifestError, StorageFailed, all_of
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.volume.documents import from_document, to_document
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.publish import write_whole

_LOG: Final = logging.getLogger("morpheus.cache")
# A manifest that belongs to a worker, not to an endpoint, counts only while that worker may come back.
_WORKER_CONFLICTS_S: Final = 86_400.0


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
        return _path(layout, manifest).read_bytes() == _document(manifest)
    except FileNotFoundError:
        return False


def leave_manifest(layout: Layout, manifest: EndpointManifest) -> None:
    """Writes the manifest. Raises OSError."""
    write_whole(_path(layout, manifest), _document(manifest))


def _path(layout: Layout, manifest: EndpointManifest) -> Path:
    return layout.manifests / f"{manifest.endpoint}.json"


def _document(manifest: EndpointManifest) -> bytes:
    return to_document(manifest, indent=1)


def manifest_files(layout: Layout) -> list[Path]:
    """The files of all manifests on the volume, in order. Raises OSError."""
    return sorted(layout.manifests.glob("*.json"))


def read_manifest_file(path: Path) -> EndpointManifest | None:
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


def _readable(layout: Layout) -> Iterator[EndpointManifest]:
    for path in manifest_files(layout):
        try:
            manifest = read_manifest_file(path)
        except StorageFailed as error:
            _LOG.warning("%s; its models are not compared with ours", error)
            continue
        if manifest is not None:
            yield manifest


def require_no_conflict(layout: Layout, ours: EndpointManifest) -> None:
    """Raises ManifestError, naming both endpoints, where another names one of our paths with another origin.

    Asked only before something is fetched: two that disagree would fetch over each other for ever. One that can't be
    read is passed over with a warning, since its endpoint must not stop all the others. Raises OSError too.
    """
    mistakes = {
        o: _contradictions(ours, o) for o in _readable(layout) if o.endpoint != ours.endpoint
    }
    found = {other: errors for other, errors in mistakes.items() if errors}
    if not found:
        return
    now = volume_time(layout)
    errors = [
        e for other, errors in found.items() if _conflicts(layout, other, now) for e in errors
    ]
    if errors:
        raise all_of(errors)


def _contradictions(ours: EndpointManifest, other: EndpointManifest) -> list[ManifestError]:
    own_models = {m.path: m for m in ours.models}
    mistakes = []
    for model in other.models:
        own = own_models.get(model.path)
        if own is None or own.origin == model.origin or (own.sha256 and own.sha256 == model.sha256):
            continue
        mistakes.append(
            ManifestError(
                model.path,
                f"endpoint {ours.endpoint} takes it from {own.origin}, "
                f"endpoint {other.endpoint} from {model.origin}",
                "give one of them another path, or both one origin "
                f"(an endpoint that is gone: gc --forget {other.endpoint} --apply)",
            )
        )
    return mistakes


def forget(layout: Layout, endpoint: str) -> None:
    """Removes an endpoint's manifest. Raises OSError."""
    (layout.manifests / f"{endpoint}.json").unlink(missing_ok=True)


def _conflicts(layout: Layout, manifest: EndpointManifest, now: float) -> bool:
    if manifest.worker is None:
        return True
    seen = seen_worker(layout, manifest.worker, now)
    # A worker that ended in good order fetches nothing any more.
    return seen is not None and not seen.ended and seen.age_s < _WORKER_CONFLICTS_S
