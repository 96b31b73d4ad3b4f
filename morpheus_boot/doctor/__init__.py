"""Looks at everything that a boot needs, and goes on past what is wrong: each check gives its findings."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, TypeAlias

from morpheus_boot.cache.survey import survey
from morpheus_boot.config.redact import Redactor
from morpheus_boot.config.settings import Settings
from morpheus_boot.deployment import volume_of
from morpheus_boot.doctor.check import Finding, Level, Patient, error, errors_of, ok
from morpheus_boot.doctor.machine import look_at_comfyui, look_at_gpu, look_at_ports, look_at_python
from morpheus_boot.doctor.network import look_at_origins, look_at_tokens
from morpheus_boot.doctor.storage import look_at_mount, look_at_room
from morpheus_boot.errors import MorpheusError, storage_error
from morpheus_boot.manifest import Manifest, read_manifest
from morpheus_boot.work.background import begin

__all__ = ["Finding", "Level", "examine"]

Check: TypeAlias = Callable[[Patient], Iterable[Finding]]

# In the order in which a boot would meet what they look at.
_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("volume", look_at_mount),
    ("room", look_at_room),
    ("Python", look_at_python),
    ("ComfyUI", look_at_comfyui),
    ("GPU", look_at_gpu),
    ("ports", look_at_ports),
    ("tokens", look_at_tokens),
    ("origins", look_at_origins),
)


def examine(
    settings: Settings, redact: Redactor, *, stopping: threading.Event, deadline_s: float
) -> Iterator[Finding]:
    """Makes all checks at once, and yields their findings in order; none raises what a user can mend.

    A check that takes longer than ``deadline_s`` is left behind: a call on a volume that hangs never returns.
    """
    for wrong in settings.wrong:
        yield from errors_of("settings", wrong)
    manifest = Manifest(settings.models)
    try:
        manifest = read_manifest(settings.models, settings.environ)
    except MorpheusError as raised:
        yield from errors_of("models.yaml", raised)
    else:
        redact.add(manifest.secrets)
        counts = f"models: {len(manifest.models)}, custom nodes: {len(manifest.nodes)}"
        yield ok("models.yaml", f"{settings.models} ({counts})")
    patient = _patient(settings, manifest, stopping)
    begun = [
        (name, begin(partial(_made, name, check, patient), f"doctor {name}"))
        for name, check in _CHECKS
    ]
    until = time.monotonic() + deadline_s
    for name, outcome in begun:
        try:
            yield from outcome.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            yield error(name, f"no answer within {deadline_s:.0f} s", "see what hangs: df, ls")


def _patient(settings: Settings, manifest: Manifest, stopping: threading.Event) -> Patient:
    volume = begin(partial(volume_of, settings, manifest), "doctor volume")
    surveyed = begin(lambda: survey(manifest.models, volume.result()), "doctor survey")
    return Patient(settings, manifest, volume, surveyed, stopping)


def _made(name: str, check: Check, patient: Patient) -> tuple[Finding, ...]:
    try:
        return tuple(check(patient))
    except MorpheusError as raised:
        return errors_of(name, raised)
    except OSError as failure:
        return errors_of(name, storage_error(name, patient.settings.local_dir, failure))
