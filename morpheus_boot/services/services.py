"""The file server's command line, environment and first answer; ComfyUI's are comfyui/'s."""

import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.services.process import ServiceSpec

FILE_SERVER: Final = "fileserver"
COMFYUI: Final = "comfyui"
_POLL_S: Final = 0.05


def file_server(
    *,
    port: int,
    extra_ports: tuple[int, ...],
    comfyui_port: int,
    volume: Path | None,
    worker: str | None,
    local_dir: Path,
    repository: Path,
    environ: Mapping[str, str],
) -> ServiceSpec:
    """The file server on ``port`` and, where free, on ``extra_ports``.

    ``volume`` None: it serves its state only; ``worker`` None: no ComfyUI runs beside it, and so no jobs.
    """
    env = {
        name: value
        for name, value in environ.items()
        if name not in ("PORT", "PORT_HEALTH", "MORPHEUS_VOLUME", "MORPHEUS_WORKER")
    }
    env["FILESERVER_PORT"] = str(port)
    env["COMFYUI_PORT"] = str(comfyui_port)
    env["MORPHEUS_LOCAL_DIR"] = str(local_dir)
    env["PYTHONPATH"] = str(repository)
    env["PYTHONUNBUFFERED"] = "1"
    env["MORPHEUS_LOG"] = "json"
    for name, extra in zip(("PORT", "PORT_HEALTH"), extra_ports, strict=False):
        env[name] = str(extra)
    if volume is not None:
        env["MORPHEUS_VOLUME"] = str(volume)
    if worker is not None:
        env["MORPHEUS_WORKER"] = worker
    return ServiceSpec(
        name=FILE_SERVER,
        argv=(sys.executable, "-P", "-m", "fileserver"),
        env=env,
        cwd=local_dir,
        port=port,
    )


def wait_until_it_listens(
    name: str, port: int, deadline_s: float, stopping: threading.Event
) -> None:
    """Returns once the ``port`` of the service ``name`` takes connections, or ``stopping`` is set.

    Raises WaitedTooLong after ``deadline_s``.
    """
    until = time.monotonic() + deadline_s
    while not _listens(port):
        if time.monotonic() >= until:
            cause = f"it did not listen on port {port} within {deadline_s:.0f} s"
            raise WaitedTooLong(name, cause, "look at its lines in the log")
        if stopping.wait(_POLL_S):
            return


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
