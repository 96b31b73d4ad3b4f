"""The services by name: how the file server is started, and what each prints as lines of our log."""

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.report.log import Entry, for_no_terminal, parse_terminal_line
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
