"""The file server with times that a test can wait for: a program as ``python -m fileserver`` is one."""

import os
from dataclasses import replace
from typing import Final

from fileserver.__main__ import run
from fileserver.settings import read_server_settings
from morpheus_boot.config.variables import Limits

IMPATIENT: Final = Limits(
    connections=20,
    body_idle_s=1.0,
    stall_s=1.0,
)

if __name__ == "__main__":
    os._exit(run(replace(read_server_settings(), limits=IMPATIENT)))
