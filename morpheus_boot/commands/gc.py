"""``gc``: lists what no endpoint needs any more; ``--apply`` removes it."""

from collections.abc import Collection, Iterable, Iterator

from morpheus_boot.cache.garbage import Garbage, find_garbage, remove
from morpheus_boot.cache.lock.workers import volume_time
from morpheus_boot.cache.manifests import WORKER_KEEPS_S, EndpointManifest, Roots, forget
from morpheus_boot.config.settings import Invocation
from morpheus_boot.deployment import read_deployment, volume_errors
from morpheus_boot.errors import UsageError
from morpheus_boot.jobs.removal import expire_jobs, old_jobs
from morpheus_boot.jobs.store import JobStore
from morpheus_boot.report.stdout import print_json, print_line
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.mount import bytes_below, bytes_of, size_text


def run(invocation: Invocation) -> None:
    """Prints what may go, and with ``--apply`` removes it. Raises MorpheusError."""
    deployment = read_deployment(invocation)
    layout = deployment.layout
    own_paths = [model.path for model in deployment.manifest.models]
    with volume_errors(deployment.volume):
        roots = Roots(layout, volume_time(layout), invocation.forget)
        _require_known(invocation.forget, [m.endpoint for m in roots.all()])
        found = (
            *_old_jobs(layout, invocation),
            # Before the workers' last beats go, which say how they ended.
            *_marks(layout),
            *find_garbage(roots, own_paths),
        )
        kept = _Kept(layout, roots.manifests())
        removed = _removed(found, invocation, roots) if invocation.apply else []
        for endpoint in invocation.forget if invocation.apply else ():
            forget(layout, endpoint)
    if invocation.json:
        _print_json(found, removed, kept)
        return
    _print_text(found, removed, invocation)
    _print_kept(kept, own_paths)


class _Kept:
    """The manifests that count, and the bytes that each of their models has on the volume."""

    def __init__(self, layout: Layout, manifests: tuple[EndpointManifest, ...]) -> None:
        """Raises OSError."""
        self.manifests = manifests
        paths = frozenset(model.path for manifest in manifests for model in manifest.models)
        self._sizes = {path: bytes_of(layout.model(path)) for path in paths}

    def size_bytes(self, paths: Iterable[str]) -> int:
        """The bytes of these models together."""
        return sum(self._sizes[path] for path in paths)

    def there(self, manifest: EndpointManifest) -> set[str]:
        """The models that it names and that are on the volume."""
        return {model.path for model in manifest.models if self._sizes[model.path]}


def _old_jobs(layout: Layout, invocation: Invocation) -> Iterator[Garbage]:
    if invocation.jobs_older_than_h is not None:
        for name in old_jobs(layout, invocation.jobs_older_than_h * 3600):
            path = layout.job(name)
            yield Garbage("job", path, "untouched for so long", bytes_below(path))


def _marks(layout: Layout) -> Iterator[Garbage]:
    for worker in JobStore(layout).gone_workers(WORKER_KEEPS_S):
        yield Garbage("marks", layout.job_marks / worker, "no sign of its worker for 7 days", 0)


def _removed(found: tuple[Garbage, ...], invocation: Invocation, roots: Roots) -> list[Garbage]:
    """Removes what it can of ``found``, and returns that. Raises MorpheusError, OSError."""
    layout = roots.layout
    expired = frozenset[str]()
    if invocation.jobs_older_than_h is not None:
        expired = frozenset(expire_jobs(layout, invocation.jobs_older_than_h * 3600))

    def is_gone(garbage: Garbage) -> bool:
        if garbage.kind == "job":
            return garbage.path.name in expired
        if garbage.kind == "marks":
            return JobStore(layout).settle_worker(garbage.path.name, WORKER_KEEPS_S)
        return remove(garbage, roots)

    return [garbage for garbage in found if is_gone(garbage)]


def _require_known(forgotten: tuple[str, ...], known: Collection[str]) -> None:
    for endpoint in forgotten:
        if endpoint not in known:
            names = ", ".join(known) or "none"
            raise UsageError(f"--forget {endpoint}", "it left no manifest", f"known are: {names}")


def _print_kept(kept: _Kept, own_paths: list[str]) -> None:
    named = set(own_paths)
    workers = []
    for manifest in kept.manifests:
        if manifest.worker is not None:
            workers.append(manifest)
            continue
        paths = kept.there(manifest)
        named |= paths
        print_line(f"kept: {_amount(kept, paths)}, that endpoint {manifest.endpoint} names")
    # Most of them are those of this very manifest, one for each boot or fill: only what they alone keep is news.
    keepers = {w.endpoint: paths for w in workers if (paths := kept.there(w) - named)}
    if keepers:
        amount = _amount(kept, set().union(*keepers.values()))
        forget_all = " ".join(f"--forget {worker}" for worker in keepers)
        print_line(
            f"kept: {amount}, that only workers name, each for 7 days after its last beat; "
            f"if it is not needed: gc {forget_all} --apply"
        )


def _amount(kept: _Kept, paths: set[str]) -> str:
    models = "1 model" if len(paths) == 1 else f"{len(paths)} models"
    return f"{models}, {size_text(kept.size_bytes(paths))}"


def _print_json(found: tuple[Garbage, ...], removed: list[Garbage], kept: _Kept) -> None:
    things = [
        {
            "kind": g.kind,
            "path": str(g.path),
            "reason": g.reason,
            "size_bytes": g.size_bytes,
            "removed": g in removed,
        }
        for g in found
    ]
    keepers = [
        {
            "endpoint": m.endpoint,
            "worker": m.worker,
            "models": sorted(model.path for model in m.models),
            "size_bytes": kept.size_bytes(kept.there(m)),
        }
        for m in kept.manifests
    ]
    print_json({"garbage": things, "kept": keepers})


def _print_text(found: tuple[Garbage, ...], removed: list[Garbage], invocation: Invocation) -> None:
    for g in found:
        done = "removed " if g in removed else ""
        print_line(f"{done}{g.kind:<9} {size_text(g.size_bytes):>10}  {g.path}  ({g.reason})")
    total = size_text(sum(g.size_bytes for g in found))
    if not found:
        print_line("nothing to remove")
    elif invocation.apply:
        print_line(f"{len(removed)} of {len(found)} removed")
    else:
        print_line(f"{len(found)} to remove, {total}: run gc --apply")
