"""``verify``: reads every cached model again and compares its SHA-256 with its record."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

from morpheus_boot.cache import FillContext
from morpheus_boot.cache.records import Record, all_records
from morpheus_boot.cache.repair import (
    TO_REPAIR,
    Condition,
    Verdict,
    confirm,
    file_of,
    judge,
    repair,
)
from morpheus_boot.config.settings import Invocation
from morpheus_boot.deployment import Deployment, read_deployment, volume_errors
from morpheus_boot.errors import MorpheusError, StorageFailed, all_of, storage_error
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.progress import Progress, Reading
from morpheus_boot.report.stdout import print_json, print_line
from morpheus_boot.services.signals import run_to_end
from morpheus_boot.volume.layout import Layout


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of one model, and the error that stays of it."""

    verdict: Verdict
    error: MorpheusError | None = None


def run(invocation: Invocation) -> None:
    """Prints what it found of every model. Then raises MorpheusError, naming each that stays damaged."""
    deployment = read_deployment(invocation)
    with volume_errors(deployment.volume):
        found = run_to_end(lambda stopping: tuple(_verify(deployment, stopping)))
    if invocation.json:
        _print_json(found)
    elif not found:
        print_line("no model is recorded on this volume yet: there is nothing to verify")
    errors = [f.error for f in found if f.error is not None]
    if errors:
        raise all_of(errors)


def _verify(deployment: Deployment, stopping: threading.Event) -> Iterator[Found]:
    invocation = deployment.invocation
    context = deployment.context(stopping, Progress())
    named = {model.path: model for model in deployment.manifest.models}
    records = all_records(deployment.layout)
    reading = Reading(sum(record.size_bytes for record in records))
    for record in records:
        reading.begin(record.size_bytes)
        found = _read(deployment.layout, record, stopping, reading)
        if found.verdict.condition is Condition.WHOLE:
            confirm(found.verdict, context)
        elif found.verdict.condition in TO_REPAIR and invocation.repair:
            found = _repaired(context, found.verdict, named.get(record.path))
        if not invocation.json:
            verdict = found.verdict
            print_line(f"{verdict.condition:<10} {verdict.path}  {verdict.detail}")
        yield found


def _read(layout: Layout, record: Record, stopping: threading.Event, reading: Reading) -> Found:
    try:
        verdict = judge(layout, record, stopping, reading)
    except OSError as failure:
        error = storage_error(record.path, file_of(layout, record), failure)
        return Found(Verdict(record, Condition.UNREADABLE, error.cause), error)
    return Found(verdict, _damage(verdict, "run verify --repair"))


def _repaired(context: FillContext, verdict: Verdict, model: ModelSpec | None) -> Found:
    if model is None:
        return Found(verdict, _damage(verdict, "name it in models.yaml, or remove it"))
    try:
        return Found(repair(model, verdict, context))
    except MorpheusError as error:
        # The others may be mended all the same.
        detail = f"{verdict.detail}; not repaired: {error.cause}"
        return Found(replace(verdict, detail=detail), error)


def _damage(verdict: Verdict, mend: str) -> StorageFailed | None:
    if verdict.condition not in TO_REPAIR:
        return None
    return StorageFailed(verdict.path, verdict.detail, mend)


def _print_json(found: tuple[Found, ...]) -> None:
    models = [
        {"path": v.path, "condition": v.condition, "detail": v.detail}
        for v in (f.verdict for f in found)
    ]
    print_json({"models": models})
