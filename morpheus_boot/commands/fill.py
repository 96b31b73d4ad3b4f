"""``fill``: brings every model into the cache, nothing else; also on a cheap CPU Pod before the endpoint exists."""

import logging
import sys
import threading
from typing import Final

from morpheus_boot import __version__
from morpheus_boot.cache import hash_pending
from morpheus_boot.deployment import (
    Deployment,
    announce,
    fill_context,
    fill_models,
    keep_our_environment,
    make_volume_folder,
    plan_models,
    read_deployment,
)
from morpheus_boot.invocation import Invocation
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
    heart = announce(invocation, deployment)
    states: dict[str, ModelState] = {}
    try:
        run_to_end(lambda stopping: _fill(invocation, deployment, states, stopping))
    except Interrupted:
        # Not from the volume, which may be what hangs.
        fetched = [m.done_bytes for m in states.values() if m.stage is ModelStage.FETCHING]
        _LOG.info("stopped; %s of what was on its way are kept", size_text(sum(fetched)))
        raise
    finally:
        heart.end()
    _LOG.info("every model is there (%d)", len(deployment.manifest.models))


def _fill(
    invocation: Invocation,
    deployment: Deployment,
    states: dict[str, ModelState],
    stopping: threading.Event,
) -> None:
    plan = plan_models(deployment)

    def put(model: ModelState) -> None:
        states[model.path] = model

    with shown_on(sys.stderr, put) as report:
        cached = fill_models(invocation, deployment, plan, stopping=stopping, report=report)
    pending = [c for c in cached if c.hash_later]
    if pending:
        volume = deployment.volume
        hash_pending(
            pending, fill_context(invocation, volume, stopping=stopping, report=Progress())
        )
    keep_our_environment(invocation, deployment, stopping)
