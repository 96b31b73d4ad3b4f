"""How long RunPod waits for a worker, and a warning before it stops waiting."""

import logging
from collections.abc import Iterable
from typing import Final

from morpheus_boot.cache import Step
from morpheus_boot.volume.mount import size_text

_LOG: Final = logging.getLogger("morpheus.boot")
# RunPod's documentation, "Endpoint configurations": after 7 minutes a worker counts as unhealthy.
_RUNPOD_WAITS_S: Final = 420.0
# A guess at the low end of what origins and volumes give (150 to 400 MB/s in the field). A measured rate would be
# truer but comes when it is too late to choose; a warning too many costs a line, one too few a loop of killed workers.
_ASSUMED_BYTES_PER_S: Final = 50_000_000


def warn_of_long_fill(steps: Iterable[Step], init_timeout_s: float | None) -> None:
    """Warns where the bytes that ``steps`` lack would take longer than RunPod waits.

    ``init_timeout_s``: RUNPOD_INIT_TIMEOUT. Models whose size models.yaml does not say are not counted.
    """
    missing_bytes = sum(step.model.size_bytes or 0 for step in steps if step.needs_bytes)
    needed_s = missing_bytes / _ASSUMED_BYTES_PER_S
    waits_s = init_timeout_s or _RUNPOD_WAITS_S
    if needed_s <= waits_s:
        return
    _LOG.warning(
        "%s are missing, which take %.0f s at %s/s, and RunPod gives a worker up after %.0f s: fill the volume first"
        " from a CPU Pod (pod_start.sh fill), or set RUNPOD_INIT_TIMEOUT=%.0f on the endpoint",
        size_text(missing_bytes),
        needed_s,
        size_text(_ASSUMED_BYTES_PER_S),
        waits_s,
        2 * needed_s,
    )
