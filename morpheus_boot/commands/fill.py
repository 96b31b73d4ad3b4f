"""``fill``: brings every model into the cache, nothing else; also on a cheap CPU Pod before the endpoint exists."""

import logging
import threading
from typing import Final

from morpheus_boot.deployment import (
    Deployment,
    announce,
    fill_models,
    make_volume_folder,
    plan_models,
    read_deployment,
)
from morpheus_boot.invocation import Invocation
from morpheus_boot.progress import Progress
from morpheus_boot.run.interrupt import run_to_end

_LOG: Final = logging.getLogger("morpheus.boot")


def run(invocation: Invocation) -> None:
    """Fills, and returns when all models are there. Raises MorpheusError, Interrupted."""
    deployment = read_deployment(invocation)
    make_volume_folder(deployment.volume)
    heart = announce(invocation, deployment)
    try:
        run_to_end(lambda stopping: _fill(invocation, deployment, stopping))
    finally:
        if heart is not None:
            heart.end()
    _LOG.info("all %d models are there", len(deployment.manifest.models))


def _fill(invocation: Invocation, deployment: Deployment, stopping: threading.Event) -> None:
    plan = plan_models(deployment)
    report = Progress()
    fill_models(invocation, deployment, plan, stopping=stopping, report=report)
