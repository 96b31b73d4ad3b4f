"""A Python that has RunPod's SDK: one of the image's own, else ours with what our lock names.

The SDK with all it needs is 90 packages in 190 MB, with their byte code. They are installed once a volume and kept
there as one archive, so that the next worker needs no network.
"""

import logging
import shutil
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.errors import NotSetUp, WaitedTooLong
from morpheus_boot.start.environment import make_environment
from morpheus_boot.start.installed import site_key, site_of
from morpheus_boot.volume.archive import ArchiveLock, provide
from morpheus_boot.volume.layout import Layout
from morpheus_boot.work.program import run_program

_LOG: Final = logging.getLogger("morpheus.queue")
LOCK: Final = Path(__file__).parent / "requirements.txt"
_PROBE_TIMEOUT_S: Final = 120.0
# Imports all that the handler uses; the first SDK whose loop knows RunPod's stop channel is 1.10.
_PROBE: Final = """
import importlib.metadata, runpod, sys
from runpod.serverless.modules import rp_job
assert sys.version_info >= (3, 10) and runpod.serverless.start and runpod.serverless.progress_update
print(importlib.metadata.version("runpod"), hasattr(rp_job, "get_stop_signals"))
"""


@dataclass(frozen=True, slots=True)
class Sdk:
    """``python`` runs the handler; ``site`` comes first on its path where the SDK is not its own."""

    python: Path
    site: Path | None = None


def find_sdk(
    pythons: Iterable[Path],
    *,
    environ: Mapping[str, str],
    folder: Path,
    stopping: threading.Event,
) -> Sdk | None:
    """The first of the image's ``pythons`` that has the SDK; a program is run in each. Raises Stopped."""
    for python in dict.fromkeys(pythons):
        try:
            ended = run_program(
                (str(python), "-c", _PROBE),
                environ=environ,
                folder=folder,
                timeout_s=_PROBE_TIMEOUT_S,
                stopping=stopping,
            )
        except (NotSetUp, WaitedTooLong) as error:
            _LOG.debug("%s", error)
            continue
        if ended.code == 0:
            version, can_stop = ended.out.split()[-2:]
            _LOG.info("the image has RunPod's SDK %s, in %s", version, python)
            if can_stop != "True":
                _LOG.warning(
                    "RunPod's SDK %s does not know the stop channel: a cancelled job runs to its end;"
                    " runpod 1.10 or newer in the image mends it",
                    version,
                )
            return Sdk(python)
        if "No module named 'runpod'" not in ended.err:
            _LOG.warning("%s has RunPod's SDK but can't use it (%s)", python, ended.words)
    return None


def provide_sdk(
    *,
    layout: Layout,
    local: Path,
    environ: Mapping[str, str],
    archive_lock: ArchiveLock,
    lock: Path = LOCK,
) -> Sdk:
    """Our own Python with the SDK below ``local``, from the archive on the volume where it has one.

    Raises MorpheusError as make_environment() does; OSError where ``local`` can't be written.
    """
    key = site_key(lock)
    home = local / "queue"
    site, archive = home / f"site-{key}", layout.archives / "serverless" / f"{key}.tar.gz"

    def install(staging: Path) -> bool:
        _LOG.info("installing RunPod's SDK, once a volume")
        venv = make_environment(home, lock, environ)
        site_of(venv).rename(staging)
        shutil.rmtree(venv)
        return True

    provide(site, archive, install, archive_lock(f"serverless/{key}"))
    return Sdk(Path(sys.executable), site)
