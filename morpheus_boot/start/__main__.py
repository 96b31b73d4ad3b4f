"""``python -m morpheus_boot.start``: what pod_start.sh becomes where it finds no environment of ours."""

import sys

from morpheus_boot.config.argv import end_when_stopped

if __name__ == "__main__":
    end_when_stopped(sys.argv[1:])

    from morpheus_boot.start.environment import main

    main(sys.argv[1:])
