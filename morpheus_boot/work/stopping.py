"""How work ends before its time: by a signal, or because the boot is over."""

import signal
from typing import Final

# SIGHUP: the terminal it was started from has gone.
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(Exception):
    """The boot, or a command, is being stopped; what is safe on the volume stays there for the next worker.

    Long steps are handed the event that says so, and raise this once it is set.
    """


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those of STOP_SIGNALS that stop this process: not SIGHUP where it is to be ignored, as by nohup(1)."""
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return tuple(s for s in STOP_SIGNALS if not (s is signal.SIGHUP and ignores_hangup))
