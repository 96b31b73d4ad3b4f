"""``verify``: reads every cached model again and compares its SHA-256 with its record."""

import threading
from collections.abc import Iterator
from dataclasses import asdict

from morpheus_boot.cache.hashing import Condition, Repairs, Verdict, read_again
from morpheus_boot.deployment import Deployment, fill_options, read_deployment
from morpheus_boot.errors import StorageFailed, all_of, storage_error
from morpheus_boot.invocation import Invocation
from morpheus_boot.progress import Progress
from morpheus_boot.run.interrupt import run_to_end
from morpheus_boot.stdout import print_json, print_line

_BAD = (Condition.DAMAGED, Condition.MISSING)


def run(invocation: Invocation) -> None:
    """Prints what it found. Raises StorageFailed, naming each, where something is damaged and stays so."""
    deployment = read_deployment(invocation)
    try:
        verdicts = run_to_end(lambda stopping: tuple(_verify(invocation, deployment, stopping)))
    except OSError as error:
        raise storage_error("volume", deployment.volume.root, error) from error
    if invocation.json:
        print_json({"models": [asdict(v) for v in verdicts]})
    elif not verdicts:
        print_line("no model is recorded on this volume yet: there is nothing to verify")
    bad = [v for v in verdicts if v.condition in _BAD]
    if bad:
        mend = (
            "run verify --repair"
            if not invocation.repair
            else "name it in models.yaml, or remove it"
        )
        raise all_of([StorageFailed(v.path, v.detail, mend) for v in bad])


def _verify(
    invocation: Invocation, deployment: Deployment, stopping: threading.Event
) -> Iterator[Verdict]:
    volume = deployment.volume
    repairs = Repairs(
        volume,
        fill_options(invocation, volume),
        stopping=stopping,
        report=Progress(),
    )
    named = {model.path: model for model in deployment.manifest.models}
    for verdict in read_again(volume.layout, stopping):
        found = verdict
        model = named.get(verdict.path)
        wanted = invocation.repair and verdict.condition in _BAD
        if wanted and model is not None and repairs.repair(model):
            found = Verdict(verdict.path, Condition.REPAIRED, verdict.detail)
        if not invocation.json:
            print_line(f"{found.condition:<10} {found.path}  {found.detail}")
        yield found
