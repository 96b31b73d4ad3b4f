"""``pin``: models.yaml with digests, sizes and commits filled in, its comments kept: printed, or put in its place."""

import logging
import threading
from typing import Final

from morpheus_boot.cache.filler import Filler
from morpheus_boot.cache.parts import Version
from morpheus_boot.cache.records import read_record
from morpheus_boot.comfyui.custom_nodes.fetch import Repository
from morpheus_boot.config.settings import Invocation
from morpheus_boot.deployment import Deployment, read_deployment
from morpheus_boot.errors import StorageFailed
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.manifest.pinned import Pin, pinned_text
from morpheus_boot.report.stdout import print_text
from morpheus_boot.services.signals import run_to_end
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.publish import write_whole

_LOG: Final = logging.getLogger("morpheus.pin")


def run(invocation: Invocation) -> None:
    """Asks every origin, and prints or writes. Raises the first failure, and then does neither."""
    deployment = read_deployment(invocation)
    text = run_to_end(lambda stopping: _pin(deployment, stopping))
    if not invocation.write:
        print_text(text)
        return
    path = deployment.manifest.path.resolve()  # the file itself, not a link to it
    try:
        write_whole(path, text.encode(), mode=path.stat().st_mode & 0o777)
    except OSError as error:
        cause = f"can't be written ({(error.strerror or str(error)).lower()})"
        raise StorageFailed(str(path), cause, "make it writable, or use what pin prints") from error


def _pin(deployment: Deployment, stopping: threading.Event) -> str:
    manifest, environ = deployment.manifest, deployment.invocation.settings.environ
    filler = Filler(deployment.context(stopping))
    pins = [_pin_of(model, filler, deployment.layout) for model in manifest.models]
    commits = [
        Repository(n.name, n.git, environ=environ, stopping=stopping).commit_of(n.ref)
        for n in manifest.nodes
    ]
    return pinned_text(manifest.path.read_text("utf-8"), pins, commits)


def _pin_of(model: ModelSpec, filler: Filler, layout: Layout) -> Pin:
    resolved = filler.resolutions.of(model)
    version = resolved.version
    sha256 = version.sha256 or _recorded_sha256(layout, model, version)
    if sha256 is None:
        mend = (
            "and no size either: write both into models.yaml by hand"
            if version.size_bytes is None
            else "fill the cache first, then pin takes it from there"
        )
        _LOG.warning("%s: its origin names no digest; %s", model.path, mend)
    return Pin(sha256, version.size_bytes, resolved.commit if model.huggingface else None)


def _recorded_sha256(layout: Layout, model: ModelSpec, version: Version) -> str | None:
    """The digest of what the cache holds, where that is the version that the origin has now."""
    record = read_record(layout, model.path)
    if record is None or record.damaged or record.origin != model.source.identity:
        return None
    same_size = record.size_bytes == version.size_bytes
    # Of an adopted file no ETag may be known.
    return record.sha256 if same_size and record.etag in (None, version.etag) else None
