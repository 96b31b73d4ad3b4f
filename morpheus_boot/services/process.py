"""One service as a process group of its own: started, watched, stopped by TERM, grace, KILL."""

import functools
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from morpheus_boot.errors import ServiceFailed
from morpheus_boot.services.output import Output
from morpheus_boot.services.process_table import lives

# What is in the pipe when a process ends is read within this; a grandchild may hold the pipe open.
_DRAIN_S: Final = 0.3
# How long a killed process may take to go; one that hangs in the kernel, on a cut volume, never does.
_SETTLE_S: Final = 0.8


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How a service is started; ``port`` is where it will listen, if it does."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    port: int | None = None


class Process:
    """A running service, its session and process group. Used by one thread, that which started it."""

    def __init__(self, spec: ServiceSpec, on_line: Callable[[str], None]) -> None:
        """Starts it. Raises ServiceFailed."""
        self.spec = spec
        self.is_gone = False
        """Whether nothing of its group is left."""
        self._code: int | None = None
        self._kill_at = math.inf
        self._killed_at = math.inf
        read_fd, write_fd = os.pipe()
        try:
            self._popen = subprocess.Popen(
                (*_dies_with_us(), *spec.argv),
                stdin=subprocess.DEVNULL,
                stdout=write_fd,
                stderr=subprocess.STDOUT,
                cwd=spec.cwd,
                env=spec.env,
                start_new_session=True,
            )
        except OSError as error:
            os.close(read_fd)
            cause = f"it can't be started: {error.strerror} ({error.filename})"
            raise ServiceFailed(spec.name, cause, "look at this path") from error
        finally:
            os.close(write_fd)
        self.started_at = time.monotonic()
        """Of the monotonic clock."""
        self._output = Output(read_fd, spec.name, on_line)

    @property
    def pid(self) -> int:
        """Its first process, which leads its group."""
        return self._popen.pid

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that it printed; safe from any thread."""
        return self._output.last_lines

    @property
    def stop_requested(self) -> bool:
        """Whether its end is wanted."""
        return self._kill_at < math.inf

    def take_exit_code(self) -> int | None:
        """How its first process ended (negative for a signal): once; None before, and after.

        It is not reaped before its whole group is gone: so long nobody else gets the group's number.
        """
        if self._code is not None:
            return None
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        self._output.wait_for_end(_DRAIN_S)
        self._code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        return self._code

    def request_stop(self, kill_at: float) -> None:
        """TERM to the group, once; KILL follows at ``kill_at`` of the monotonic clock, or sooner if asked."""
        if not self.stop_requested:
            self._send(signal.SIGTERM)
        self._kill_at = min(self._kill_at, kill_at)

    def look(self, now: float) -> str | None:
        """Kills the group when its time has come, and reaps it when all of it is gone; what went wrong with that.

        One that even KILL does not end is given up, as if it were gone.
        """
        if self._code is not None and not lives(self.pid):
            self._popen.wait()
            self.is_gone = True
        elif now - self._killed_at >= _SETTLE_S:
            self.is_gone = True
            return f"pid {self.pid} does not end, not even by SIGKILL: it hangs in the kernel"
        elif now >= self._kill_at and self._killed_at == math.inf:
            self._killed_at = now
            self._send(signal.SIGKILL)
            return "it did not stop in time: killed"
        return None

    def end(self) -> None:
        """KILL to the group, at once, and reaps: the last resort."""
        self._send(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_SETTLE_S)

    def _send(self, signum: int) -> None:
        # Another user's process in the group can't be reached; all others are.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)


def ending_text(code: int) -> str:
    """An exit code as a person reads it; negative for a signal, as in subprocess."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"


@functools.cache
def _dies_with_us() -> tuple[str, ...]:
    """What makes a child die when the thread that started it does, also by SIGKILL: PR_SET_PDEATHSIG.

    util-linux's setpriv sets it and becomes the child, in 2 ms; preexec_fn is not safe beside threads.
    Empty where setpriv is missing or is BusyBox's, which does not know the option.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or Path(setpriv).resolve().name == "busybox":
        return ()
    return (setpriv, "--pdeathsig", "KILL")
