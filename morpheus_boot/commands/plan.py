"""``plan``: what ``up`` would do, and whether it fits; changes nothing."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from morpheus_boot.cache import Action, Step
from morpheus_boot.cache.filler import Filler
from morpheus_boot.cache.room import Room, require_room
from morpheus_boot.cache.survey import SurveyedModel, lines, survey
from morpheus_boot.comfyui.find import find_comfyui
from morpheus_boot.config.settings import Invocation
from morpheus_boot.deployment import (
    Deployment,
    read_deployment,
    require_agreement,
    require_folder,
    volume_errors,
)
from morpheus_boot.errors import MorpheusError, VolumeFull, all_of, storage_error
from morpheus_boot.report.stdout import print_json, print_line
from morpheus_boot.services.signals import run_to_end
from morpheus_boot.volume.mount import Volume, measure, size_text
from morpheus_boot.volume.publish import require_writable

_LOG: Final = logging.getLogger("morpheus.cache")


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``plan`` prints, the errors that ``up`` would meet, and what it would only warn of."""

    models: tuple[SurveyedModel, ...]
    room: Room
    errors: tuple[MorpheusError, ...]
    warnings: tuple[MorpheusError, ...]


def run(invocation: Invocation) -> None:
    """Prints the plan; then raises the errors that ``up`` would meet, if any."""
    deployment = read_deployment(invocation)
    require_folder(deployment.volume)
    answer = run_to_end(lambda stopping: _ask(deployment, stopping))
    root = deployment.volume.root
    if invocation.json:
        _print_json(root, answer)
    else:
        _print_text(root, answer)
    for warning in answer.warnings:
        _LOG.warning("%s", warning)
    if answer.errors:
        raise all_of(answer.errors)


def _ask(deployment: Deployment, stopping: threading.Event) -> Answer:
    """Surveys the volume, and asks the origins of what is missing, which the survey doesn't."""
    volume, settings = deployment.volume, deployment.invocation.settings
    filler = Filler(deployment.context(stopping))
    with volume_errors(volume):
        found = survey(deployment.manifest.models, volume)
        steps = found.plan.steps
        room = replace(filler.price(steps), used=measure(volume.layout, with_jobs=True))
        errors = [
            *_raised(lambda: require_agreement(deployment, found.plan)),
            *_errors([step for step in steps if step.model.required], filler, volume),
            *_raised(lambda: find_comfyui(settings.comfyui_dir, settings.comfyui_python)),
        ]
        optional = [step for step in steps if not step.model.required]
        warnings = tuple(_warnings(optional, filler, room, volume))
    models = tuple(
        replace(model, size_bytes=filler.resolutions.size_bytes(model.step.model))
        if model.step.needs_bytes
        else model
        for model in found.models
    )
    return Answer(models, room, tuple(errors), warnings)


def _errors(steps: list[Step], filler: Filler, volume: Volume) -> Iterator[MorpheusError]:
    """What keeps a boot from the models that it waits for."""
    yield from _refusals(steps, filler)
    room = filler.price(steps)
    yield from _raised(lambda: require_room(room, volume, replace_in_place=False))
    if (room.missing_bytes or room.unknown) and volume.root.exists():
        try:
            require_writable(volume.root)
        except OSError as error:
            yield storage_error("volume", volume.root, error)


def _warnings(
    steps: list[Step], filler: Filler, room: Room, volume: Volume
) -> Iterator[MorpheusError]:
    """What goes wrong with the models that a boot does not wait for, and what it never looks at."""
    yield from _refusals(steps, filler)
    if any(step.needs_bytes and filler.resolutions.size_bytes(step.model) for step in steps):
        for error in _raised(lambda: require_room(room, volume, replace_in_place=False)):
            yield VolumeFull("models that are not required", error.cause, error.mend)
    if room.overdrawn and not room.missing_bytes:
        yield VolumeFull(
            f"volume {volume.root}",
            f"more is there than was bought: {room.summary}",
            "correct MORPHEUS_VOLUME_GB or volume.size_gb",
        )


def _refusals(steps: Iterable[Step], filler: Filler) -> Iterator[MorpheusError]:
    for step in steps:
        blocked = step.action is Action.BLOCKED
        refusal = step.obstacle if blocked else filler.resolutions.refusal(step.model)
        if refusal is not None:
            yield refusal


def _raised(look: Callable[[], object]) -> list[MorpheusError]:
    try:
        look()
    except MorpheusError as error:
        return [error]
    return []


def _print_text(root: Path, answer: Answer) -> None:
    print_line(f"volume {root}" if root.exists() else f"volume {root} (not there yet)")
    for line in lines(answer.models, lambda model: model.step.action):
        print_line(line)
    room = answer.room
    unknown = f" and {room.unknown} of unknown size" if room.unknown else ""
    print_line(f"to fetch: {size_text(room.missing_bytes)}{unknown}; {room.summary}")


def _print_json(root: Path, answer: Answer) -> None:
    room = answer.room
    document = {
        "volume": str(root),
        "models": [model.as_document() for model in answer.models],
        "missing_bytes": room.missing_bytes,
        "free_bytes": room.free_bytes,
        # Nobody knows where an origin has not said a size.
        "fits": None if room.fits and room.unknown else room.fits,
        "errors": [str(error) for error in answer.errors],
        "warnings": [str(warning) for warning in answer.warnings],
    }
    print_json(document)
