"""The services by name: how the file server is started, and what each prints as lines of our log."""

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from morpheus_boot.config.settings import REPOSITORY, Settings
from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.report.log import Entry, for_no_terminal, parse_terminal_line
from morpheus_boot.services.process import ServiceSpec

FILE_SERVER: Final = "fileserver"
COMFYUI: Final = "comfyui"
_POLL_S: Final = 0.05


def file_server(settings: Settings, volume: Path | None, *, runs_jobs: bool) -> ServiceSpec:
    """The file server on its port and, where they are free, on the platform's.

    ``volume`` None: it serves its state only. Not ``runs_jobs``: no ComfyUI runs beside it.
    """
    told_anew = {"PORT", "PORT_HEALTH", "MORPHEUS_VOLUME", "MORPHEUS_WORKER"}
    env = {name: value for name, value in settings.environ.items() if name not in told_anew}
    env |= {
        "FILESERVER_PORT": str(settings.fileserver_port),
        "COMFYUI_PORT": str(settings.comfyui_port),
        "MORPHEUS_LOCAL_DIR": str(settings.local_dir),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "MORPHEUS_LOG": "json",
    }
    for name, port in zip(("PORT", "PORT_HEALTH"), settings.extra_ports, strict=False):
        env[name] = str(port)
    if volume is not None:
        env["MORPHEUS_VOLUME"] = str(volume)
    if runs_jobs:
        env["MORPHEUS_WORKER"] = settings.worker
    command = (sys.executable, "-P", "-m", "fileserver")
    return ServiceSpec(FILE_SERVER, command, env, settings.local_dir, settings.fileserver_port)


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


# How a service's lines are read; None for a line that is not of its form.
Reader = Callable[[str], Entry | None]


def log_line(readers: Mapping[str, Reader], service: str, line: str) -> None:
    """Logs a line that ``service`` printed, under its name and with the level that it has there.

    One that has no reader prints text for a terminal.
    """
    logger = logging.getLogger(f"morpheus.{service}")
    entry = readers.get(service, parse_terminal_line)(line)
    if entry is None:
        logger.info("%s", for_no_terminal(line))
    else:
        logger.log(entry.level, "%s", entry.message)
