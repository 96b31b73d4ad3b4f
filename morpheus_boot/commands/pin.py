"""``pin``: prints models.yaml with digests, sizes and commits filled in, its comments kept."""

import logging
import threading
from typing import Final

from morpheus_boot.cache.filler import Filler
from morpheus_boot.cache.parts import Version
from morpheus_boot.cache.records import read_record
from morpheus_boot.comfyui.custom_nodes.fetch import Repository
from morpheus_boot.deployment import Deployment, read_deployment
from morpheus_boot.invocation import Invocation
from morpheus_boot.manifest import HuggingFaceSource, ModelSpec
from morpheus_boot.manifest.pinned import Pin, pinned_text
from morpheus_boot.report.stdout import print_text
from morpheus_boot.services.signals import run_to_end
from morpheus_boot.volume.layout import Layout

_LOG: Final = logging.getLogger("morpheus.pin")


def run(invocation: Invocation) -> None:
    """Asks every origin and prints. Raises the first failure, and then prints nothing."""
    deployment = read_deployment(invocation)
    text = run_to_end(lambda stopping: _pin(deployment, stopping))
    print_text(text)


def _pin(deployment: Deployment, stopping: threading.Event) -> str:
    manifest = deployment.manifest
    filler = Filler(deployment.context(stopping))
    pins = {}
    for model in manifest.models:
        resolved = filler.resolutions.of(model)
        version = resolved.version
        sha256 = version.sha256 or _recorded_sha256(deployment.layout, model, version)
        if sha256 is None:
            mend = (
                "and no size either: write both into models.yaml by hand"
                if version.size_bytes is None
                else "fill the cache first, then pin takes it from there"
            )
            _LOG.warning("%s: its origin names no digest; %s", model.path, mend)
        hub = isinstance(model.source, HuggingFaceSource)
        pins[model.path] = Pin(sha256, version.size_bytes, resolved.commit if hub else None)
    environ = deployment.invocation.settings.environ
    commits = {
        node.name: Repository(node.name, node.git, environ=environ, stopping=stopping).commit_of(
            node.ref
        )
        for node in manifest.nodes
    }
    return pinned_text(manifest.path.read_text("utf-8"), pins, commits)


def _recorded_sha256(layout: Layout, model: ModelSpec, version: Version) -> str | None:
    """The digest of what the cache holds, where that is the version that the origin has now."""
    record = read_record(layout, model.path)
    if record is None or record.damaged or record.origin != model.source.identity:
        return None
    same_size = record.size_bytes == version.size_bytes
    # Of an adopted file no ETag may be known.
    return record.sha256 if same_size and record.etag in (None, version.etag) else None
