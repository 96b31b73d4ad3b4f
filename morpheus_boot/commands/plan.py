"""``plan``: what ``up`` would do, and whether it fits; changes nothing."""

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from morpheus_boot.cache import Action, Step
from morpheus_boot.cache.actions import blocked
from morpheus_boot.cache.filler import Filler
from morpheus_boot.cache.room import Room, require_room
from morpheus_boot.comfyui.find import find_comfyui
from morpheus_boot.deployment import Deployment, fill_options, plan_models, read_deployment
from morpheus_boot.errors import MorpheusError, all_of, storage_error
from morpheus_boot.invocation import Invocation
from morpheus_boot.run.interrupt import run_to_end
from morpheus_boot.stdout import print_json, print_line
from morpheus_boot.volume import measure, size_text


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One model of the plan as it is shown; ``size_bytes`` None: no origin has said."""

    path: str
    action: str
    reason: str
    required: bool
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``plan`` prints, and the errors that ``up`` would meet."""

    volume: str
    models: tuple[PlannedModel, ...]
    room: Room
    errors: tuple[MorpheusError, ...]


def run(invocation: Invocation) -> None:
    """Prints the plan; then raises the errors that ``up`` would meet, if any."""
    deployment = read_deployment(invocation)
    answer = run_to_end(lambda stopping: _ask(invocation, deployment, stopping))
    _print_json(answer) if invocation.json else _print_text(answer)
    if answer.errors:
        raise all_of(answer.errors)


def _ask(invocation: Invocation, deployment: Deployment, stopping: threading.Event) -> Answer:
    volume = deployment.volume
    plan = plan_models(deployment)
    filler = Filler(
        volume, fill_options(invocation, volume), stopping=stopping, report=lambda _model: None
    )
    try:
        room = filler.price(plan)
        room = replace(room, used=measure(volume.layout, with_jobs=True))
    except OSError as failure:
        raise storage_error("volume", volume.root, failure) from failure
    errors = [error for step in plan.steps if (error := _error_of(step, filler))]
    errors += _raised(lambda: require_room(room, volume, replace_in_place=False))
    settings = invocation.settings
    errors += _raised(lambda: find_comfyui(settings.comfyui_dir, settings.comfyui_python))
    models = tuple(_planned(step, filler) for step in plan.steps)
    return Answer(str(volume.root), models, room, tuple(errors))


def _error_of(step: Step, filler: Filler) -> MorpheusError | None:
    if step.action is Action.BLOCKED:
        return blocked(step)
    return filler.resolutions.refusal(step.model)


def _raised(look: Callable[[], object]) -> list[MorpheusError]:
    try:
        look()
    except MorpheusError as error:
        return [error]
    return []


def _planned(step: Step, filler: Filler) -> PlannedModel:
    model = step.model
    if step.needs_bytes:
        size_bytes = filler.resolutions.size_bytes(model)
    else:
        size_bytes = step.record.size_bytes if step.record else None
    return PlannedModel(model.path, step.action.value, step.reason, model.required, size_bytes)


def _print_text(answer: Answer) -> None:
    width = max((len(m.path) for m in answer.models), default=0)
    for model in answer.models:
        size = size_text(model.size_bytes) if model.size_bytes else "?"
        optional = "" if model.required else "  (not required)"
        reason = f"  {model.reason}" if model.reason else ""
        print_line(f"{model.action:<8} {model.path:<{width}} {size:>10}{reason}{optional}")
    room = answer.room
    unknown = f" and {room.unknown} of unknown size" if room.unknown else ""
    print_line(f"to fetch: {size_text(room.missing_bytes)}{unknown}; {room.summary}")


def _print_json(answer: Answer) -> None:
    document = {
        "volume": answer.volume,
        "models": [asdict(model) for model in answer.models],
        "missing_bytes": answer.room.missing_bytes,
        "free_bytes": answer.room.free_bytes,
        "fits": answer.room.fits,
        "errors": [str(error) for error in answer.errors],
    }
    print_json(document)
