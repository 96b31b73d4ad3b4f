"""The queue handler as a service: which Python runs it, what it is told, what its lines mean, and RunPod's patience."""

import json
import logging
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from morpheus_boot.cache import Step
from morpheus_boot.comfyui.environment import environment_without_secrets
from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.config.settings import REPOSITORY, Settings
from morpheus_boot.errors import local_error
from morpheus_boot.queue.sdk import Sdk, find_sdk, provide_sdk
from morpheus_boot.report.log import Entry
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.volume.archive import ArchiveLock
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.mount import size_text

QUEUE: Final = "queue"
_LOG: Final = logging.getLogger("morpheus.boot")
_HANDLER: Final = Path(__file__).with_name("handler.py")
# RunPod's documentation, "Endpoint configurations": after 7 minutes a worker counts as unhealthy.
_RUNPOD_WAITS_S: Final = 420.0
# A guess at the low end of what origins and volumes give (150 to 400 MB/s in the field). A measured rate would be
# truer but comes when it is too late to choose; a warning too many costs a line, one too few a loop of killed workers.
_ASSUMED_BYTES_PER_S: Final = 50_000_000


def prepare_queue(
    settings: Settings,
    layout: Layout,
    comfyui: ComfyUI,
    *,
    archive_lock: ArchiveLock,
    stopping: threading.Event,
) -> ServiceSpec:
    """The handler of RunPod's queue, ready to be started; installs the SDK where the image has none.

    Raises:
        OriginUnavailable: the SDK must be fetched and can't be.
        StorageFailed: MORPHEUS_LOCAL_DIR can't be written.
        WaitedTooLong: another worker, or an installer, took too long.
        Stopped: the boot is being stopped.
    """
    environ, folder = _environment(settings), settings.local_dir
    system = shutil.which("python3", path=environ.get("PATH"))
    pythons = (comfyui.python, *((Path(system),) if system else ()))
    try:
        sdk = find_sdk(pythons, environ=environ, folder=folder, stopping=stopping)
        sdk = sdk or provide_sdk(
            layout=layout, local=folder, environ=settings.environ, archive_lock=archive_lock
        )
    except OSError as error:
        raise local_error("RunPod's SDK", folder, error) from error
    return _service(sdk, environ, folder)


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


def read_sdk_line(line: str) -> Entry | None:
    """A line of the SDK's log on RunPod, an object with the job's id, as an entry of ours; None for any other."""
    if not line.startswith("{"):
        return None
    try:
        said = json.loads(line)
        name = {"WARN": "WARNING"}.get(said["level"], said["level"])
        level = logging.getLevelNamesMapping().get(name, logging.INFO)
        job = f"{said['requestId']}: " if said.get("requestId") else ""
        return Entry(level, f"{job}{said['message']}")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _service(sdk: Sdk, environ: Mapping[str, str], folder: Path) -> ServiceSpec:
    env = dict(environ)
    if sdk.site is not None:
        env["PYTHONPATH"] = str(sdk.site)
    return ServiceSpec(QUEUE, (str(sdk.python), str(_HANDLER)), env, folder)


def _environment(settings: Settings) -> dict[str, str]:
    """RunPod's own variables, which the SDK reads, and the way to the file server; no other secret."""
    environ = settings.environ
    runpods = [name for name in environ if name.startswith("RUNPOD_")]
    env = environment_without_secrets(environ, runpods, REPOSITORY)
    # Nothing must import the modules beside the handler by their bare names. Python 3.10 does not know this, so none of
    # them may be called like one of the standard library.
    env["PYTHONSAFEPATH"] = "1"
    env["FILESERVER_PORT"] = str(settings.fileserver_port)
    if settings.morpheus_token is not None:
        env["MORPHEUS_TOKEN"] = settings.morpheus_token.reveal()
    if "RUNPOD_DEBUG_LEVEL" not in env:
        # Without it the SDK says several lines at each poll, with the queue's URL in them.
        env.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    return env
