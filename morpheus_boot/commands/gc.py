"""``gc``: lists what no endpoint needs any more; ``--apply`` removes it."""

from collections.abc import Collection, Iterator

from morpheus_boot.cache.garbage import Garbage, find_garbage, remove
from morpheus_boot.cache.manifests import WORKER_KEEPS_S, forget, is_kept, read_manifests
from morpheus_boot.deployment import read_deployment
from morpheus_boot.errors import UsageError, storage_error
from morpheus_boot.invocation import Invocation
from morpheus_boot.jobs.expiry import expire_jobs, old_jobs
from morpheus_boot.jobs.lost import gone_workers, settle_worker
from morpheus_boot.layout import Layout
from morpheus_boot.stdout import print_json, print_line
from morpheus_boot.volume import bytes_below, size_text


def run(invocation: Invocation) -> None:
    """Prints what may go, and with ``--apply`` removes it. Raises MorpheusError."""
    deployment = read_deployment(invocation)
    layout = deployment.volume.layout
    own_paths = [model.path for model in deployment.manifest.models]
    try:
        manifests = {m.endpoint: m for m in read_manifests(layout)}
        _require_known(invocation.forget, manifests)
        found = (
            *_old_jobs(layout, invocation),
            # Before the workers' last beats go, which say how they ended.
            *_marks(layout),
            *find_garbage(layout, own_paths, forgotten=invocation.forget),
        )
        removed = _removed(layout, found, invocation) if invocation.apply else []
        if invocation.apply:
            for endpoint in invocation.forget:
                forget(layout, endpoint)
    except OSError as error:
        raise storage_error("volume", deployment.volume.root, error) from error
    if invocation.json:
        _print_json(found, removed)
        return
    _print_text(found, removed, invocation)
    for manifest in manifests.values():
        if manifest.endpoint not in invocation.forget and is_kept(layout, manifest):
            whose = (
                "endpoint" if manifest.worker is None else "worker, for 7 days after its last beat"
            )
            print_line(
                f"kept: {len(manifest.models)} models that {manifest.endpoint} names ({whose})"
            )


def _old_jobs(layout: Layout, invocation: Invocation) -> Iterator[Garbage]:
    if invocation.jobs_older_than_h is not None:
        for name in old_jobs(layout, invocation.jobs_older_than_h * 3600):
            path = layout.job(name)
            yield Garbage("job", path, "untouched for so long", bytes_below(path))


def _marks(layout: Layout) -> Iterator[Garbage]:
    for worker in gone_workers(layout, WORKER_KEEPS_S):
        yield Garbage("marks", layout.job_marks / worker, "no sign of its worker for 7 days", 0)


def _removed(layout: Layout, found: tuple[Garbage, ...], invocation: Invocation) -> list[Garbage]:
    """Removes what it can of ``found``, and returns that. Raises MorpheusError, OSError."""
    expired = frozenset[str]()
    if invocation.jobs_older_than_h is not None:
        expired = frozenset(expire_jobs(layout, invocation.jobs_older_than_h * 3600))

    def is_gone(garbage: Garbage) -> bool:
        if garbage.kind == "job":
            return garbage.path.name in expired
        if garbage.kind == "marks":
            return settle_worker(layout, garbage.path.name, WORKER_KEEPS_S)
        return remove(layout, garbage, forgotten=invocation.forget)

    return [garbage for garbage in found if is_gone(garbage)]


def _require_known(forgotten: tuple[str, ...], known: Collection[str]) -> None:
    for endpoint in forgotten:
        if endpoint not in known:
            names = ", ".join(known) or "none"
            raise UsageError(f"--forget {endpoint}", "it left no manifest", f"known are: {names}")


def _print_json(found: tuple[Garbage, ...], removed: list[Garbage]) -> None:
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
    print_json({"garbage": things})


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
