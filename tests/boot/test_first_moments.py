"""The program's first moments, before its imports are through."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.boot.images import make_venv

# The first of the standard library that cli.py imports.
SLOW = """
import signal
print("importing", flush=True)
signal.pause()
"""


@pytest.mark.parametrize(
    ("arguments", "signum", "code"),
    [
        ((), signal.SIGTERM, 0),
        ((), signal.SIGHUP, 0),
        (("plan",), signal.SIGHUP, 129),
        (("--models", "X"), signal.SIGTERM, 0),
        (("--volume", "plan", "files"), signal.SIGINT, 0),
        (("--models", "up", "plan"), signal.SIGTERM, 143),
        (("import", "files"), signal.SIGINT, 130),
    ],
)
def test_a_stop_during_the_imports_ends_with_the_code_of_a_later_one(
    arguments: tuple[str, ...], signum: int, code: int, tmp_path: Path
) -> None:
    (tmp_path / "argparse.py").write_text(SLOW)
    with subprocess.Popen(
        [sys.executable, "-m", "morpheus_boot", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "importing\n"

        program.send_signal(signum)

        assert program.wait(10) == code


def test_the_environment_that_the_program_runs_on_is_held_to_its_end(tmp_path: Path) -> None:
    make_venv(tmp_path / "venv")
    lock = tmp_path / "venv" / "lock.txt"
    lock.write_text("a lock")
    resources = tmp_path / "resources.txt"
    os.mkfifo(resources)

    with subprocess.Popen(
        [tmp_path / "venv" / "bin" / "python", "-m", "morpheus_boot", "import", resources],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
    ) as program:
        # Opened once the program reads it.
        with resources.open("w"), lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        program.wait(10)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
