"""``fill``: brings every model into the cache, nothing else; also on a cheap CPU Pod before the endpoint exists."""

import logging
import sys
import threading
from typing import Final

from morpheus_boot import __version__
from morpheus_boot.cache import fill, hash_pending
from morpheus_boot.config.settings import Invocation
from morpheus_boot.deployment import (
    Deployment,
    announce,
    keep_our_environment,
    make_volume_folder,
    read_deployment,
)
from morpheus_boot.report.progress import Progress, shown_on
from morpheus_boot.report.state import ModelStage, ModelState
from morpheus_boot.services.signals import Interrupted, run_to_end
from morpheus_boot.volume.mount import size_text

_LOG: Final = logging.getLogger("morpheus.boot")


def run(invocation: Invocation) -> None:
    """Fills, and returns when all models are there. Raises MorpheusError, Interrupted."""
    _LOG.info("morpheus boot %s, fill, worker %s", __version__, invocation.settings.worker)
    deployment = read_deployment(invocation)
    make_volume_folder(deployment.volume)
    heart = announce(deployment)
    states: dict[str, ModelState] = {}
    try:
        run_to_end(lambda stopping: _fill(deployment, states, stopping))
    except Interrupted:
        # Not from the volume, which may be what hangs.
        fetched = [m.done_bytes for m in states.values() if m.stage is ModelStage.FETCHING]
        _LOG.info("stopped; %s of what was on its way are kept", size_text(sum(fetched)))
        raise
    finally:
        heart.end()
    _LOG.info("every model is there (%d)", len(deployment.manifest.models))


def _fill(deployment: Deployment, states: dict[str, ModelState], stopping: threading.Event) -> None:
    def put(model: ModelState) -> None:
        states[model.path] = model

    plan = deployment.plan()
    with shown_on(sys.stderr, put) as report:
        cached = fill(plan, deployment.context(stopping, report))
    hash_pending(cached, deployment.context(stopping, Progress()))
    keep_our_environment(deployment, stopping)
