"""Runs git, uv and ComfyUI's Python to their ends, or until the boot is told to stop."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.errors import NotSetUp, WaitedTooLong
from morpheus_boot.work.stopping import Stopped

_LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Ended:
    """What a program left behind."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Its last words on one line: the part that an error quotes."""
        lines = [line for line in (self.err or self.out).splitlines() if line.strip()]
        return " ".join(" ".join(lines[-3:]).split())[-400:] or f"exit code {self.code}"


def run_program(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    folder: Path,
    timeout_s: float,
    stopping: threading.Event,
) -> Ended:
    """Runs ``argv`` in ``folder`` to its end, in a session of its own, which is killed with all that is in it.

    Raises:
        NotSetUp: there is no such program.
        WaitedTooLong: it took longer than ``timeout_s``.
        Stopped: ``stopping`` was set.
    """
    name = Path(argv[0]).name
    try:
        process = subprocess.Popen(
            argv,
            env=environ,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise NotSetUp(
            name, f"it can't be started ({error.strerror})", f"install {name} in the image"
        ) from error
    until = time.monotonic() + timeout_s
    while True:
        try:
            out, err = process.communicate(timeout=_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            if stopping.is_set():
                _kill(process)
                raise Stopped from None
            if time.monotonic() >= until:
                _kill(process)
                raise WaitedTooLong(
                    name,
                    f"it did not end within {timeout_s:.0f} s ({' '.join(argv[1:4])})",
                    "check the network, and start again",
                ) from None
        except BaseException:
            _kill(process)
            raise
        else:
            return Ended(process.returncode, out, err)


def _kill(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
