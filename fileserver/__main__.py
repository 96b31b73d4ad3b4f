"""``python -m fileserver``: listens first, then imports the rest."""

import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Final

from fileserver.settings import ServerSettings, read_log_format, read_server_settings
from morpheus_boot.config.redact import Redactor
from morpheus_boot.errors import MorpheusError, NotSetUp
from morpheus_boot.report.log import set_up_log

_LOG: Final = logging.getLogger("morpheus.fileserver")


def main() -> int:
    """Reads the environment and serves; returns the exit code."""
    set_up_log(read_log_format(), 0, Redactor())
    try:
        return run(read_server_settings())
    except MorpheusError as error:
        _LOG.error("%s", error)
        return error.exit_code


def run(settings: ServerSettings) -> int:
    """Serves until SIGTERM or SIGINT. Raises NotSetUp where the port can't be had."""
    set_up_log(settings.log_format, 0, Redactor(settings.secrets))
    sockets = list(_listen(settings))
    _raise_descriptor_limit()
    # uvicorn takes the signals over while it serves, and raises them again here when it has ended.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        from fileserver.server import serve  # noqa: PLC0415 - a third of a second, after the ports are ours

        serve(settings, sockets)
    except _Ended:
        pass
    return 0


class _Ended(BaseException):
    """A signal said so."""


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _Ended


def _listen(settings: ServerSettings) -> Iterator[socket.socket]:
    try:
        yield _bound(settings.port, settings.limits.stall_s)
    except OSError as error:
        raise NotSetUp(
            "file server",
            f"port {settings.port} can't be had ({error.strerror})",
            "stop what holds it, or set FILESERVER_PORT",
        ) from error
    for port in settings.extra_ports:
        try:
            yield _bound(port, settings.limits.stall_s)
        except OSError as error:
            _LOG.warning("port %d is not served: %s", port, error.strerror)


def _bound(port: int, stall_s: float) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Its connections inherit it: the kernel ends one whose client takes nothing that we send for so long.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_s * 1000))
        listener.bind(("0.0.0.0", port))  # noqa: S104 - RunPod's proxy comes from outside the container
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _raise_descriptor_limit() -> None:
    """Each connection takes up to three descriptors; Docker's soft limit may be 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    # A thread that hangs with the volume must not keep the process from ending.
    os._exit(main())
