"""``fill``: brings every model into the cache, nothing else; also on a cheap CPU Pod before the endpoint exists."""

import logging
import sys
import threading
from pathlib import Path
from typing import Final

from morpheus_boot import __version__
from morpheus_boot.bars import shown_on
from morpheus_boot.cache import hash_pending
from morpheus_boot.deployment import (
    Deployment,
    announce,
    fill_models,
    fill_options,
    make_volume_folder,
    plan_models,
    read_deployment,
)
from morpheus_boot.installed import keep_environment
from morpheus_boot.invocation import Invocation
from morpheus_boot.progress import Progress
from morpheus_boot.run.interrupt import run_to_end

_LOG: Final = logging.getLogger("morpheus.boot")


def run(invocation: Invocation) -> None:
    """Fills, and returns when all models are there. Raises MorpheusError, Interrupted."""
    _LOG.info("morpheus boot %s, fill, worker %s", __version__, invocation.settings.worker)
    deployment = read_deployment(invocation)
    make_volume_folder(deployment.volume)
    heart = announce(invocation, deployment)
    try:
        run_to_end(lambda stopping: _fill(invocation, deployment, stopping))
    finally:
        heart.end()
    _LOG.info("every model is there (%d)", len(deployment.manifest.models))


def _fill(invocation: Invocation, deployment: Deployment, stopping: threading.Event) -> None:
    keep_environment(deployment.volume.layout, Path(sys.prefix))
    plan = plan_models(deployment)
    with shown_on(sys.stderr, Progress(), lambda _model: None) as report:
        cached = fill_models(invocation, deployment, plan, stopping=stopping, report=report)
    pending = [c for c in cached if c.hash_later]
    if pending:
        options = fill_options(invocation, deployment.volume)
        hash_pending(pending, deployment.volume, options, stopping=stopping, report=Progress())
