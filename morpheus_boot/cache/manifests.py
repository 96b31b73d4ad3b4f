"""What each endpoint's models.yaml names, left on the volume: gc keeps it, and contradictions are found."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.documents import from_document
from morpheus_boot.errors import ManifestError, StorageFailed, all_of
from morpheus_boot.layout import Layout
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.publish import write_whole
from morpheus_boot.workers import seen_worker

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
        return _path(layout, manifest).read_bytes() == _document(manifest)
    except FileNotFoundError:
        return False


def leave_manifest(layout: Layout, manifest: EndpointManifest) -> None:
    """Writes the manifest. Raises OSError."""
    write_whole(_path(layout, manifest), _document(manifest))


def _path(layout: Layout, manifest: EndpointManifest) -> Path:
    return layout.manifests / f"{manifest.endpoint}.json"


def _document(manifest: EndpointManifest) -> bytes:
    return json.dumps(asdict(manifest), ensure_ascii=False, indent=1).encode()


def read_manifests(layout: Layout) -> Iterator[EndpointManifest]:
    """All manifests on the volume.

    Raises:
        StorageFailed: one can't be read as such; whoever went on without it would remove its models.
        OSError: the volume fails.
    """
    for path in sorted(layout.manifests.glob("*.json")):
        try:
            document = json.loads(path.read_bytes())
            models = tuple(from_document(NamedModel, model) for model in document["models"])
            yield from_document(EndpointManifest, {**document, "models": models})
        except FileNotFoundError:
            continue  # forgotten meanwhile
        except (ValueError, TypeError, KeyError) as error:
            raise StorageFailed(
                str(path),
                f"it is no manifest that this version can read ({error})",
                "update this program, or remove the file if its endpoint is gone",
            ) from error


def require_no_conflict(layout: Layout, ours: EndpointManifest) -> None:
    """Raises ManifestError, naming both endpoints, where another names one of our paths with another origin.

    Asked only before something is fetched: two that disagree would fetch over each other for ever.
    """
    origins = {m.path: m for m in ours.models}
    mistakes = []
    for other in read_manifests(layout):
        if other.endpoint == ours.endpoint or not _conflicts(layout, other):
            continue
        for model in other.models:
            own = origins.get(model.path)
            if (
                own is None
                or own.origin == model.origin
                or (own.sha256 and own.sha256 == model.sha256)
            ):
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
    if mistakes:
        raise all_of(mistakes)


def kept_paths(layout: Layout, forgotten: Collection[str] = ()) -> frozenset[str]:
    """The models that gc must keep; endpoints that are ``forgotten`` don't count. Raises OSError."""
    return frozenset(
        model.path
        for manifest in read_manifests(layout)
        if manifest.endpoint not in forgotten and is_kept(layout, manifest)
        for model in manifest.models
    )


def forget(layout: Layout, endpoint: str) -> None:
    """Removes an endpoint's manifest. Raises OSError."""
    (layout.manifests / f"{endpoint}.json").unlink(missing_ok=True)


def _conflicts(layout: Layout, manifest: EndpointManifest) -> bool:
    if manifest.worker is None:
        return True
    seen = seen_worker(layout, manifest.worker)
    # A worker that ended in good order fetches nothing any more.
    return seen is not None and not seen.ended and seen.age_s < _WORKER_CONFLICTS_S


def is_kept(layout: Layout, manifest: EndpointManifest) -> bool:
    """Whether gc keeps what a manifest names: an endpoint's, or a worker's seen within 7 days. Raises OSError."""
    if manifest.worker is None:
        return True
    seen = seen_worker(layout, manifest.worker)
    return seen is not None and seen.age_s < WORKER_KEEPS_S
