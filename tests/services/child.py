"""A service for the tests: prints `ready` and each signal it gets; its arguments say how it misbehaves.

ignore-term       goes on after SIGTERM
grandchild        has an oddly named child in its own group that ignores SIGTERM and holds its output open
escaped           has such a child in another session
exit=N            ends by itself with N, after a few last words
look=PATH         looks at a file at the start, before it is ready
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    words = set(sys.argv[1:])
    ends = {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}

    def on_signal(signum: int, _frame: FrameType | None) -> None:
        say(signal.Signals(signum).name)
        if "ignore-term" not in words:
            sys.exit(0)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if "grandchild" in words or "escaped" in words:
        grandchild(own_session="escaped" in words)
    if "look" in ends:
        say("looking")
        Path(ends["look"]).stat()
    say("ready")
    if "exit" in ends:
        say("one thing went wrong")
        say("and then another")
        sys.exit(int(ends["exit"]))
    while True:
        signal.pause()


def grandchild(*, own_session: bool) -> None:
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid:
        os.read(read_fd, 1)
        say(f"grandchild {pid}")
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path("/proc/self/comm").write_text("odd) Z 1 (name")
    if own_session:
        os.setsid()
    os.write(write_fd, b".")
    while True:
        signal.pause()


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
