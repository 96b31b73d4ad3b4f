"""Looks at everything that a boot needs, and goes on past what is wrong: each check gives its findings."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, TypeAlias

from morpheus_boot.config.redact import Redactor
from morpheus_boot.config.settings import Settings
from morpheus_boot.doctor.finding import Finding, Level, error, errors_of, ok
from morpheus_boot.doctor.machine import look_at_comfyui, look_at_gpu, look_at_ports, look_at_python
from morpheus_boot.doctor.network import look_at_origins, look_at_tokens
from morpheus_boot.doctor.patient import Patient
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
        yield error("settings", f"{wrong.subject}: {wrong.cause}", wrong.mend)
    manifest, found = _read(settings)
    if manifest is not None:
        redact.add(manifest.secrets)
    yield from found
    patient = Patient(settings, manifest, stopping)
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


def _read(settings: Settings) -> tuple[Manifest | None, tuple[Finding, ...]]:
    try:
        manifest = read_manifest(settings.models, settings.environ)
    except MorpheusError as raised:
        return None, errors_of("models.yaml", raised)
    counts = f"{len(manifest.models)} models, {len(manifest.nodes)} custom nodes"
    return manifest, (ok("models.yaml", f"{settings.models}: {counts}"),)


def _made(name: str, check: Check, patient: Patient) -> tuple[Finding, ...]:
    try:
        return tuple(check(patient))
    except MorpheusError as raised:
        return errors_of(name, raised)
    except OSError as failure:
        return errors_of(name, storage_error(name, patient.settings.local_dir, failure))
