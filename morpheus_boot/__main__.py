"""``python -m morpheus_boot``."""

import signal
import sys
from pathlib import Path
from types import FrameType

from morpheus_boot.config.argv import stays
from morpheus_boot.work.stopping import stop_signals


def _stop_early(signum: int, _frame: FrameType | None) -> None:
    """Before the program has begun, a stop ends it as it would later: nothing has been started yet."""
    raise SystemExit(0 if stays(sys.argv[1:]) else 128 + signum)


if __name__ == "__main__":
    for stop in stop_signals():
        signal.signal(stop, _stop_early)

    from morpheus_boot.start.installed import hold_environment

    # Another start, with another lock, removes the environments that nobody holds.
    held = hold_environment(Path(sys.prefix))

    # The imports take a while, and a stop may come during them.
    from morpheus_boot.cli import main

    sys.exit(main(sys.argv[1:]))
