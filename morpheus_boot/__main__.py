"""``python -m morpheus_boot``."""

import signal
import sys
from types import FrameType

from morpheus_boot.argv import command_in
from morpheus_boot.stopping import stop_signals

_STAYING = ("up", "files")


def _stop_early(signum: int, _frame: FrameType | None) -> None:
    """Before the program has begun, a stop ends it as it would later: nothing has been started yet."""
    stays = command_in(sys.argv[1:]) in _STAYING
    raise SystemExit(0 if stays else 128 + signum)


if __name__ == "__main__":
    for stop in stop_signals():
        signal.signal(stop, _stop_early)

    from morpheus_boot.cli import main  # the imports take a while, and a stop may come during them

    sys.exit(main(sys.argv[1:]))
