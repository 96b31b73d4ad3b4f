"""What is to be here, and where: models.yaml and the volume, and the steps that bring the one onto the other.

``up``, ``fill``, ``plan`` and the other commands share these.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache import (
    Action,
    CachedModel,
    FillContext,
    FillOptions,
    Plan,
    fill,
    fill_what_fits,
    hub_roots,
    make_plan,
)
from morpheus_boot.cache.lock.heartbeat import Heart
from morpheus_boot.cache.lock.lock import Turns
from morpheus_boot.cache.lock.workers import beat_for
from morpheus_boot.cache.manifests import (
    EndpointManifest,
    is_left,
    leave_manifest,
    manifest_of,
    require_no_conflict,
)
from morpheus_boot.cache.options import Credentials, LockTimes, RetryPolicy, TransferTimes
from morpheus_boot.cache.reports import outcome_of
from morpheus_boot.errors import MorpheusError, NotSetUp, storage_error
from morpheus_boot.invocation import Invocation
from morpheus_boot.manifest import Manifest, read_manifest
from morpheus_boot.report.state import ModelState
from morpheus_boot.start.installed import keep_environment
from morpheus_boot.volume.mount import Volume, find_volume, size_text

_LOG: Final = logging.getLogger("morpheus.boot")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The manifest and the volume it is for."""

    manifest: Manifest
    volume: Volume


def read_deployment(invocation: Invocation) -> Deployment:
    """Reads the manifest, then finds the volume. Raises ManifestError, NotSetUp."""
    settings = invocation.settings
    manifest = read_manifest(settings.models, settings.environ)
    invocation.redact.add(manifest.secrets)
    size_gb = settings.volume_gb if settings.volume_gb is not None else manifest.volume.size_gb
    volume = find_volume(settings.volume, size_gb, on_runpod=settings.runpod.present)
    return Deployment(manifest, volume)


def make_volume_folder(volume: Volume) -> None:
    """Makes the volume's directory, which off RunPod may not be there yet. Raises NotSetUp, StorageFailed."""
    root = volume.root
    require_folder(volume)
    try:
        new = not root.exists()
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error("volume", root, error) from error
    _LOG.info("volume %s (%s)%s", root, size_text(volume.size_bytes), ", made anew" if new else "")


def require_folder(volume: Volume) -> None:
    """Raises NotSetUp where the volume is there, but is no directory."""
    root = volume.root
    if root.exists() and not root.is_dir():
        raise NotSetUp("volume", f"{root} is not a directory", "set MORPHEUS_VOLUME to a directory")


def fill_context(
    invocation: Invocation,
    volume: Volume,
    *,
    stopping: threading.Event,
    report: Callable[[ModelState], None],
) -> FillContext:
    """What all steps of a fill of this worker share."""
    settings = invocation.settings
    options = FillOptions(
        worker=settings.worker,
        credentials=Credentials(settings.hf_token, settings.hf_endpoint, settings.civitai_token),
        lock_times=LockTimes(deadline_s=invocation.lock_timeout_s),
        transfer_times=TransferTimes(retry=RetryPolicy(deadline_s=invocation.retry_s)),
        hub_roots=hub_roots(volume.root),
        replace_in_place=invocation.replace_in_place,
    )
    return FillContext(volume, options, stopping, report)


def plan_models(deployment: Deployment) -> Plan:
    """What each model needs. Raises StorageFailed where the volume can't be read."""
    volume = deployment.volume
    try:
        return make_plan(deployment.manifest.models, volume.layout, hub_roots(volume.root))
    except OSError as error:
        raise storage_error("volume", volume.root, error) from error


def announce(invocation: Invocation, deployment: Deployment) -> Heart:
    """Leaves this worker's heartbeat and its manifest on the volume; one that takes neither ends nothing.

    The heart beats until it is ended, which tells the others that this worker fetches nothing any more. The plan is
    made after this: a gc elsewhere then keeps what the plan found.

    Raises ManifestError as fill_models() does: a manifest that contradicts another one is not left, since it would
    stop that other endpoint, too. StorageFailed where the volume can't be read.
    """
    heart = beat_for(deployment.volume.layout, invocation.settings.worker)
    try:
        _leave_manifest(invocation, deployment)
    except OSError as error:
        _LOG.warning("volume: this worker's manifest can't be left (%s)", error.strerror)
    except BaseException:
        heart.end()
        raise
    return heart


def _leave_manifest(invocation: Invocation, deployment: Deployment) -> None:
    layout, ours = deployment.volume.layout, _manifest_of(invocation, deployment)
    if not is_left(layout, ours):
        require_agreement(invocation, deployment, plan_models(deployment))
        leave_manifest(layout, ours)


def fill_models(
    invocation: Invocation,
    deployment: Deployment,
    plan: Plan,
    *,
    stopping: threading.Event,
    report: Callable[[ModelState], None],
) -> tuple[CachedModel, ...]:
    """Carries the plan out; returns its models in order.

    Raises:
        ManifestError: another endpoint names one of the paths with another origin.
        MorpheusError: as Filler.fill() does, and for what the volume refuses.
    """
    volume = deployment.volume
    try:
        require_agreement(invocation, deployment, plan)
        context = fill_context(invocation, volume, stopping=stopping, report=report)
        return fill(plan, context)
    except OSError as error:
        raise storage_error("volume", volume.root, error) from error


def fill_optional(
    invocation: Invocation,
    deployment: Deployment,
    *,
    stopping: threading.Event,
    report: Callable[[ModelState], None],
) -> Iterator[CachedModel | MorpheusError]:
    """Brings in the models that are not required, those that fit: each, or its error, as it comes.

    The plan is made now: since the boot's first one, other workers may have brought them in. What keeps the others
    from being fetched at all is one error. Raises Stopped.
    """
    volume = deployment.volume
    missing = [model for model in deployment.manifest.models if not model.required]
    try:
        steps = tuple(s for s in plan_models(deployment).steps if not s.model.required)
        for step in steps:
            if step.action is Action.PRESENT:
                missing.remove(step.model)
                yield step.as_cached()
        work = Plan(tuple(s for s in steps if s.action is not Action.PRESENT))
        require_agreement(invocation, deployment, work)
        context = fill_context(invocation, volume, stopping=stopping, report=report)
        for outcome in fill_what_fits(work, context):
            if isinstance(outcome, CachedModel):
                missing.remove(outcome.model)
            yield outcome
    except (MorpheusError, OSError) as error:
        failure = (
            storage_error("volume", volume.root, error) if isinstance(error, OSError) else error
        )
        for model in missing:
            report(outcome_of(model, failure))
        yield failure


def keep_our_environment(
    invocation: Invocation, deployment: Deployment, stopping: threading.Event
) -> None:
    """Leaves what this program runs on on the volume, as keep_environment() does; that it can't ends nothing."""
    layout, worker = deployment.volume.layout, invocation.settings.worker
    turns = Turns(layout, worker, stopping, LockTimes())
    try:
        keep_environment(layout, Path(sys.prefix), turns.turn)
    except MorpheusError as error:
        _LOG.info("our environment is not kept on the volume: %s", error)


def require_agreement(invocation: Invocation, deployment: Deployment, plan: Plan) -> None:
    """Raises ManifestError where the plan would fetch, and another endpoint names a path with another origin.

    OSError where the volume can't be read.
    """
    if any(step.needs_bytes for step in plan.steps):
        ours = _manifest_of(invocation, deployment)
        require_no_conflict(deployment.volume.layout, ours)


def _manifest_of(invocation: Invocation, deployment: Deployment) -> EndpointManifest:
    settings = invocation.settings
    return manifest_of(settings.endpoint, settings.worker, deployment.manifest.models)
