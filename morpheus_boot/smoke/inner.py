"""One true `up`, started as a user would start it, watched until it is ready, stopped by SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import requests

from morpheus_boot.errors import Exit, MorpheusError, ServiceFailed, WaitedTooLong
from morpheus_boot.services.process_table import read_process_table

# ComfyUI with CUDA and many nodes takes a minute or two; beyond this nobody waits for a test.
_READY_LIMIT_S: Final = 300.0
# A spot Pod gets 5 s between SIGTERM and SIGKILL.
_STOP_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.05
_LAST_LINES: Final = 6


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class InnerBoot:
    """A boot in a process of its own. As a context manager it leaves nothing running."""

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        ports: Sequence[int],
        stopping: threading.Event,
        *,
        show_log: bool,
    ) -> None:
        """``ports`` are those of ``environ``: the file server's, then ComfyUI's."""
        self._ports = ports
        self._stopping = stopping
        self._show_log = show_log
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "morpheus_boot", *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def last_lines(self) -> str:
        """The newest lines of its log, on one line."""
        return " | ".join(self._last_lines) or "nothing"

    def wait_until_ready(self) -> None:
        """Returns once `GET /ping` answers 200.

        Raises MorpheusError: the boot ended (with its exit code), failed, or took too long.
        """
        deadline = time.monotonic() + _READY_LIMIT_S
        while time.monotonic() < deadline:
            status = self._ping()
            if status == requests.codes.ok:
                return
            if status == requests.codes.service_unavailable:
                # It has given up; the exit code that says why comes once everything is stopped.
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(2 * _STOP_LIMIT_S)
            code = self._process.poll()
            if code is not None:
                self._reader.join(_STOP_LIMIT_S)
                failed = MorpheusError(
                    "up", f"ended with exit code {code}", "mend what its last lines name"
                )
                failed.exit_code = Exit(code) if code in set(Exit) else Exit.BUG
                raise failed
            if status == requests.codes.service_unavailable:
                raise ServiceFailed(
                    "up", "answers /ping with 503 and does not end", "see its last lines"
                )
            if self._stopping.wait(_POLL_S):
                raise MorpheusError("up", "was not waited for any longer", "run smoke again")
        raise WaitedTooLong(
            "up", f"was not ready within {_READY_LIMIT_S:.0f} s", "see its last lines"
        )

    def stop(self) -> None:
        """Asks it to stop, and holds it to its word. Raises MorpheusError."""
        begin = time.monotonic()
        self._process.terminate()
        try:
            code = self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise WaitedTooLong(
                "up", f"SIGTERM did not end it within {_STOP_LIMIT_S:.0f} s", "see its last lines"
            ) from None
        seconds = time.monotonic() - begin
        if code != 0:
            cause = f"SIGTERM ended it with exit code {code} after {seconds:.1f} s, not with 0"
            raise MorpheusError("up", cause, "report this with the log")
        left = [port for port in self._ports if _listens(port)]
        if left:
            cause = f"something still listens on port {left[0]} after its end"
            raise MorpheusError("up", cause, "report this with the log")

    def _ping(self) -> int | None:
        with suppress(requests.RequestException), requests.Session() as session:
            session.trust_env = False
            url = f"http://127.0.0.1:{self._ports[0]}/ping"
            return session.get(url, timeout=5).status_code
        return None

    def _read_log(self) -> None:
        stream = self._process.stdout
        for line in stream or ():
            self._last_lines.append(line.rstrip())
            if self._show_log:
                sys.stderr.write(line)
                sys.stderr.flush()

    def _end(self) -> None:
        """What SIGTERM does not end is killed, with all that it started."""
        groups = _groups_below(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_LIMIT_S)
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_STOP_LIMIT_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _groups_below(ancestor: int) -> set[int]:
    """The process groups of ``ancestor``, its own group's leader, and of all that it started."""
    entries = list(read_process_table())
    family = {ancestor}
    while grown := {e.pid for e in entries if e.parent in family} - family:
        family |= grown
    return {e.group for e in entries if e.pid in family and not e.dead}
