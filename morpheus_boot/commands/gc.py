"""``gc``: lists what no endpoint needs any more; ``--apply`` removes it."""

import json
import sys

from morpheus_boot.cache.garbage import Garbage, find_garbage, remove
from morpheus_boot.cache.manifests import forget
from morpheus_boot.deployment import read_deployment
from morpheus_boot.errors import storage_error
from morpheus_boot.invocation import Invocation
from morpheus_boot.volume import size_text


def run(invocation: Invocation) -> None:
    """Prints what may go, and with ``--apply`` removes it. Raises MorpheusError."""
    deployment = read_deployment(invocation)
    layout = deployment.volume.layout
    own_paths = [model.path for model in deployment.manifest.models]
    try:
        found = find_garbage(
            layout,
            own_paths,
            forgotten=invocation.forget,
            jobs_older_than_h=invocation.jobs_older_than_h,
        )
        removed = [g for g in found if invocation.apply and remove(layout, g)]
        if invocation.apply:
            for endpoint in invocation.forget:
                forget(layout, endpoint)
    except OSError as error:
        raise storage_error("volume", deployment.volume.root, error) from error
    _print_json(found, removed) if invocation.json else _print_text(found, removed, invocation)


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
    json.dump({"garbage": things}, sys.stdout, ensure_ascii=False, indent=1)
    print()


def _print_text(found: tuple[Garbage, ...], removed: list[Garbage], invocation: Invocation) -> None:
    for g in found:
        done = "removed " if g in removed else ""
        print(f"{done}{g.kind:<9} {size_text(g.size_bytes):>10}  {g.path}  ({g.reason})")
    total = size_text(sum(g.size_bytes for g in found))
    if not found:
        print("nothing to remove")
    elif invocation.apply:
        print(f"{len(removed)} of {len(found)} removed")
    else:
        print(f"{len(found)} things, {total}; gc --apply removes them")
