"""``plan``: what ``up`` would do, and whether it fits; changes nothing."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final

from morpheus_boot.cache import Action, Plan, Step
from morpheus_boot.cache.filler import Filler
from morpheus_boot.cache.lock.heartbeat import Beat
from morpheus_boot.cache.lock.lock import who_holds
from morpheus_boot.cache.parts import kept_bytes
from morpheus_boot.cache.room import Room, require_room
from morpheus_boot.comfyui.find import find_comfyui
from morpheus_boot.deployment import (
    Deployment,
    fill_context,
    plan_models,
    read_deployment,
    require_agreement,
    require_folder,
)
from morpheus_boot.errors import MorpheusError, VolumeFull, all_of, storage_error
from morpheus_boot.invocation import Invocation
from morpheus_boot.report.stdout import print_json, print_line
from morpheus_boot.services.signals import run_to_end
from morpheus_boot.volume.mount import Volume, measure, size_text
from morpheus_boot.volume.publish import require_writable

_LOG: Final = logging.getLogger("morpheus.cache")


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One model of the plan as it is shown; ``size_bytes`` None: no origin has said.

    ``holder``: the worker that fetches it now. ``kept_bytes``: what an earlier fill has left of it.
    """

    path: str
    action: str
    reason: str
    required: bool
    size_bytes: int | None
    holder: Beat | None
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``plan`` prints, the errors that ``up`` would meet, and what it would only warn of."""

    volume: Volume
    models: tuple[PlannedModel, ...]
    room: Room
    errors: tuple[MorpheusError, ...]
    warnings: tuple[MorpheusError, ...]


def run(invocation: Invocation) -> None:
    """Prints the plan; then raises the errors that ``up`` would meet, if any."""
    deployment = read_deployment(invocation)
    require_folder(deployment.volume)
    answer = run_to_end(lambda stopping: _ask(invocation, deployment, stopping))
    _print_json(answer) if invocation.json else _print_text(answer)
    for warning in answer.warnings:
        _LOG.warning("%s", warning)
    if answer.errors:
        raise all_of(answer.errors)


def _ask(invocation: Invocation, deployment: Deployment, stopping: threading.Event) -> Answer:
    volume = deployment.volume
    plan = plan_models(deployment)
    filler = Filler(fill_context(invocation, volume, stopping=stopping, report=lambda _model: None))
    try:
        room = filler.price(plan.steps)
        room = replace(room, used=measure(volume.layout, with_jobs=True))
        errors = [
            *_raised(lambda: require_agreement(invocation, deployment, plan)),
            *_errors(_part_of(plan, required=True), filler, volume),
        ]
        warnings = list(_warnings(_part_of(plan, required=False), filler, room, volume))
        models = tuple(_planned(step, filler, volume) for step in plan.steps)
    except OSError as failure:
        raise storage_error("volume", volume.root, failure) from failure
    settings = invocation.settings
    errors += _raised(lambda: find_comfyui(settings.comfyui_dir, settings.comfyui_python))
    return Answer(volume, models, room, tuple(errors), tuple(warnings))


def _part_of(plan: Plan, *, required: bool) -> Plan:
    return Plan(tuple(step for step in plan.steps if step.model.required is required))


def _errors(plan: Plan, filler: Filler, volume: Volume) -> Iterator[MorpheusError]:
    """What keeps a boot from the models that it waits for."""
    yield from (error for step in plan.steps if (error := _error_of(step, filler)))
    room = filler.price(plan.steps)
    yield from _raised(lambda: require_room(room, volume, replace_in_place=False))
    if room.missing_bytes or room.unknown:
        yield from _unwritable(volume)


def _warnings(plan: Plan, filler: Filler, room: Room, volume: Volume) -> Iterator[MorpheusError]:
    """What goes wrong with the models that a boot does not wait for, and what it never looks at."""
    yield from (error for step in plan.steps if (error := _error_of(step, filler)))
    if filler.price(plan.steps).missing_bytes:
        for error in _raised(lambda: require_room(room, volume, replace_in_place=False)):
            yield VolumeFull("models that are not required", error.cause, error.mend)
    if room.overdrawn and not room.missing_bytes:
        yield VolumeFull(
            f"volume {volume.root}",
            f"more is there than was bought: {room.summary}",
            "correct MORPHEUS_VOLUME_GB or volume.size_gb",
        )


def _error_of(step: Step, filler: Filler) -> MorpheusError | None:
    if step.action is Action.BLOCKED:
        return step.obstacle
    return filler.resolutions.refusal(step.model)


def _unwritable(volume: Volume) -> Iterator[MorpheusError]:
    try:
        if volume.root.exists():
            require_writable(volume.root)
    except OSError as error:
        yield storage_error("volume", volume.root, error)


def _raised(look: Callable[[], object]) -> list[MorpheusError]:
    try:
        look()
    except MorpheusError as error:
        return [error]
    return []


def _planned(step: Step, filler: Filler, volume: Volume) -> PlannedModel:
    model = step.model
    holder, kept = None, 0
    if step.needs_bytes:
        size_bytes = filler.resolutions.size_bytes(model)
        holder = who_holds(volume.layout, model.path)
        kept = kept_bytes(volume.layout, model.path)
    else:
        size_bytes = step.record.size_bytes if step.record else None
    return PlannedModel(
        model.path, step.action.value, step.reason, model.required, size_bytes, holder, kept
    )


def _print_text(answer: Answer) -> None:
    root = answer.volume.root
    print_line(f"volume {root}" if root.exists() else f"volume {root} (not there yet)")
    width = max((len(m.path) for m in answer.models), default=0)
    for model in answer.models:
        size = size_text(model.size_bytes) if model.size_bytes else "?"
        notes = "".join(f"  {note}" for note in _notes(model))
        print_line(f"{model.action:<8} {model.path:<{width}} {size:>10}{notes}")
    room = answer.room
    unknown = f" and {room.unknown} of unknown size" if room.unknown else ""
    print_line(f"to fetch: {size_text(room.missing_bytes)}{unknown}; {room.summary}")


def _notes(model: PlannedModel) -> Iterator[str]:
    if model.reason:
        yield model.reason
    if model.holder:
        yield f"{model.holder.worker} fetches it and has {size_text(model.holder.done_bytes)}"
    elif model.kept_bytes:
        yield f"{size_text(model.kept_bytes)} are kept from an earlier fill"
    if not model.required:
        yield "(not required)"


def _print_json(answer: Answer) -> None:
    room = answer.room
    document = {
        "volume": str(answer.volume.root),
        "models": [asdict(model) for model in answer.models],
        "missing_bytes": room.missing_bytes,
        "free_bytes": room.free_bytes,
        # Nobody knows where an origin has not said a size.
        "fits": None if room.fits and room.unknown else room.fits,
        "errors": [str(error) for error in answer.errors],
        "warnings": [str(warning) for warning in answer.warnings],
    }
    print_json(document)
