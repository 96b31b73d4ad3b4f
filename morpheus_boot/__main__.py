"""``python -m morpheus_boot``."""

import gc
import sys
from pathlib import Path

from morpheus_boot.config.argv import end_when_stopped

if __name__ == "__main__":
    # The imports take a while, and a stop may come during them.
    end_when_stopped(sys.argv[1:])
    # What they make is no garbage; Python's default looks for some in it so often that a tenth of the start goes there.
    gc.set_threshold(50_000)

    from morpheus_boot.start.installed import hold_environment

    # Another start, with another lock, removes the environments that nobody holds.
    held = hold_environment(Path(sys.prefix))

    from morpheus_boot.cli import main

    sys.exit(main(sys.argv[1:]))
