"""What is to be here, and where: models.yaml and the volume, and the steps that bring the one onto the other.

``up``, ``fill``, ``plan`` and the other commands share these.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from morpheus_boot.cache import (
    Action,
    CachedModel,
    FillContext,
    FillOptions,
    Plan,
    fill_what_fits,
    hub_roots,
    make_plan,
)
from morpheus_boot.cache.lock.heartbeat import Heart
from morpheus_boot.cache.lock.lock import archive_lock
from morpheus_boot.cache.lock.workers import beat_for
from morpheus_boot.cache.manifests import (
    EndpointManifest,
    is_left,
    leave_manifest,
    manifest_of,
    require_no_conflict,
)
from morpheus_boot.cache.options import Credentials, LockTimes, TransferTimes
from morpheus_boot.cache.reports import outcome_of
from morpheus_boot.config.settings import Invocation, Settings
from morpheus_boot.errors import MorpheusError, NotSetUp, storage_error
from morpheus_boot.manifest import Manifest, read_manifest
from morpheus_boot.report.state import ModelState
from morpheus_boot.start.installed import keep_environment
from morpheus_boot.volume.archive import ArchiveLock
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.mount import Volume, find_volume, size_text
from morpheus_boot.work.backoff import Backoff

_LOG: Final = logging.getLogger("morpheus.boot")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The manifest and the volume it is for, in this call of the program."""

    invocation: Invocation
    manifest: Manifest
    volume: Volume

    @property
    def layout(self) -> Layout:
        """Where everything lies on the volume."""
        return self.volume.layout

    @property
    def endpoint_manifest(self) -> EndpointManifest:
        """What this endpoint leaves of its models.yaml on the volume."""
        settings = self.invocation.settings
        return manifest_of(settings.endpoint, settings.worker, self.manifest.models)

    def plan(self) -> Plan:
        """What each model needs. Raises StorageFailed where the volume can't be read."""
        with volume_errors(self.volume):
            return make_plan(self.manifest.models, self.layout, hub_roots(self.volume.root))

    def context(
        self, stopping: threading.Event, report: Callable[[ModelState], None] = lambda _: None
    ) -> FillContext:
        """What all steps of a fill of this worker share."""
        invocation, settings = self.invocation, self.invocation.settings
        options = FillOptions(
            settings.worker,
            Credentials(settings.hf_token, settings.hf_endpoint, settings.civitai_token),
            LockTimes(deadline_s=invocation.lock_timeout_s),
            TransferTimes(retry=Backoff(deadline_s=invocation.retry_s)),
            hub_roots(self.volume.root),
            invocation.replace_in_place,
        )
        return FillContext(self.volume, options, stopping, report, self.endpoint_manifest)

    def archive_lock(self, stopping: threading.Event) -> ArchiveLock:
        """By which one worker at a time makes what all need."""
        worker, times = self.invocation.settings.worker, LockTimes()
        return partial(
            archive_lock, layout=self.layout, worker=worker, stopping=stopping, times=times
        )


@contextmanager
def volume_errors(volume: Volume) -> Iterator[None]:
    """What the operating system says of the volume, as StorageFailed or VolumeFull."""
    try:
        yield
    except OSError as error:
        raise storage_error("volume", volume.root, error) from error


def read_deployment(invocation: Invocation) -> Deployment:
    """Reads the manifest, then finds the volume. Raises ManifestError, UsageError, NotSetUp."""
    settings = invocation.settings
    manifest = read_manifest(settings.models, settings.environ)
    invocation.redact.add(manifest.secrets)
    return Deployment(invocation, manifest, volume_of(settings, manifest))


def volume_of(settings: Settings, manifest: Manifest) -> Volume:
    """The volume, of the size that the settings say was bought, else the manifest. Raises NotSetUp."""
    size_gb = manifest.volume.size_gb if settings.volume_gb is None else settings.volume_gb
    return find_volume(settings.volume, size_gb, on_runpod=settings.runpod.present)


def make_volume_folder(volume: Volume) -> None:
    """Makes the volume's directory, which off RunPod may not be there yet. Raises NotSetUp, StorageFailed."""
    require_folder(volume)
    with volume_errors(volume):
        new = not volume.root.exists()
        volume.root.mkdir(parents=True, exist_ok=True)
    made = ", made anew" if new else ""
    _LOG.info("volume %s (%s)%s", volume.root, size_text(volume.size_bytes), made)


def require_folder(volume: Volume) -> None:
    """Raises NotSetUp where the volume is there, but is no directory."""
    root = volume.root
    if root.exists() and not root.is_dir():
        raise NotSetUp("volume", f"{root} is not a directory", "set MORPHEUS_VOLUME to a directory")


def announce(deployment: Deployment) -> Heart:
    """Leaves this worker's heartbeat and its manifest on the volume; one that takes neither ends nothing.

    The heart beats until it is ended, which tells the others that this worker fetches nothing any more. The plan is
    made after this: a gc elsewhere then keeps what the plan found.

    Raises ManifestError as fill() does: a manifest that contradicts another one is not left, since it would
    stop that other endpoint, too. StorageFailed where the volume can't be read.
    """
    layout, ours = deployment.layout, deployment.endpoint_manifest
    heart = beat_for(layout, deployment.invocation.settings.worker)
    try:
        if not is_left(layout, ours):
            require_agreement(deployment, deployment.plan())
            leave_manifest(layout, ours)
    except OSError as error:
        _LOG.warning("volume: this worker's manifest can't be left (%s)", error.strerror)
    except BaseException:
        heart.end()
        raise
    return heart


def fill_optional(
    deployment: Deployment, context: FillContext
) -> Iterator[CachedModel | MorpheusError]:
    """Brings in the models that are not required, those that fit: each, or its error, as it comes.

    The plan is made now: since the boot's first one, other workers may have brought them in. What keeps the others
    from being fetched at all is one error. Raises Stopped.
    """
    missing = [model for model in deployment.manifest.models if not model.required]
    try:
        steps = tuple(s for s in deployment.plan().steps if not s.model.required)
        for step in steps:
            if step.action is Action.PRESENT:
                missing.remove(step.model)
                yield step.as_cached()
        work = Plan(tuple(s for s in steps if s.action is not Action.PRESENT))
        for outcome in fill_what_fits(work, context):
            if isinstance(outcome, CachedModel):
                missing.remove(outcome.model)
            yield outcome
    except MorpheusError as failure:
        for model in missing:
            context.report(outcome_of(model, failure))
        yield failure


def keep_our_environment(deployment: Deployment, stopping: threading.Event) -> None:
    """Leaves what this program runs on on the volume, as keep_environment() does; that it can't ends nothing."""
    try:
        keep_environment(deployment.layout, Path(sys.prefix), deployment.archive_lock(stopping))
    except MorpheusError as error:
        _LOG.info("our environment is not kept on the volume: %s", error)


def require_agreement(deployment: Deployment, plan: Plan) -> None:
    """Raises ManifestError where the plan would fetch, and another endpoint names a path with another origin.

    OSError where the volume can't be read.
    """
    if any(step.needs_bytes for step in plan.steps):
        require_no_conflict(deployment.layout, deployment.endpoint_manifest)
