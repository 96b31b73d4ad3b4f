"""Ports: whether one can be had, and if not, who has it."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from morpheus_boot.errors import NotSetUp

_ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - RunPod's proxy reaches the container from outside
_PROC: Final = Path("/proc")
_COMMAND_CHARS: Final = 120


def require_free(port: int, what: str, variable: str) -> None:
    """Makes sure that ``what`` can listen on ``port``: a service itself may notice only after its whole start.

    Raises NotSetUp, which names the process that has the port where it can be seen, and the ``variable`` that moves
    ``what`` to another.
    """
    with socket.socket() as probe:
        # As servers do: connections of an earlier run that linger must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_ANY_ADDRESS, port))
        except OSError as error:
            raise _port_error(port, what, variable, error) from error


def _port_error(port: int, what: str, variable: str, error: OSError) -> NotSetUp:
    another = f"set {variable} to another port"
    if error.errno != errno.EADDRINUSE:
        why = (error.strerror or str(error)).lower()
        return NotSetUp(
            f"port {port}", f"{what} needs it, but may not listen there ({why})", another
        )
    pid = holder_of(port)
    holder = "a process that can't be seen from here (another user's or container's)"
    if pid is not None:
        holder = f"process {pid} ({_command(pid)})"
    cause = f"{what} needs it, but {holder} has it"
    return NotSetUp(f"port {port}", cause, f"stop that process, or {another}")


def holder_of(port: int) -> int | None:
    """The process that has ``port``; None where there is none, or it can't be seen from here."""
    wanted = frozenset(f"socket:[{inode}]" for inode in _sockets_on(port))
    for folder in _PROC.iterdir():
        if folder.name.isdecimal() and not wanted.isdisjoint(_open_in(folder)):
            return int(folder.name)
    return None


def _sockets_on(port: int) -> Iterator[str]:
    """The inodes of the sockets with this local port (proc(5), /proc/net/tcp); 0 belongs to nobody."""
    for table in ("tcp", "tcp6"):
        try:
            rows = (_PROC / "net" / table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for row in rows:
            fields = row.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[9] != "0":
                yield fields[9]


def _open_in(process: Path) -> Iterator[str]:
    """What the descriptors of a process lead to; nothing where it is another user's, or has ended meanwhile."""
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                yield os.readlink(descriptor)  # noqa: PTH115 - "socket:[1234]" is no path


def _command(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return "ended meanwhile"
    text = " ".join(words.replace(b"\0", b" ").decode(errors="replace").split())
    return text if len(text) <= _COMMAND_CHARS else f"{text[:_COMMAND_CHARS]}..."
