"""``python -m morpheus_boot``."""

import sys

from morpheus_boot.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
