"""The file server with times that a test of jobs can wait for; arguments as ``silence_s=2.0`` change one."""

import os
import sys
from dataclasses import replace
from typing import Any, Final

from fileserver.__main__ import run
from fileserver.settings import read_server_settings
from morpheus_boot.jobs.following import Times

_TIMES: Final = Times(withdrawal_s=5.0, tick_s=0.1, look_s=0.3, retry_s=0.1)

if __name__ == "__main__":
    given: dict[str, Any] = {
        name: float(value) for name, value in (argument.split("=") for argument in sys.argv[1:])
    }
    os._exit(run(replace(read_server_settings(), times=replace(_TIMES, **given))))
