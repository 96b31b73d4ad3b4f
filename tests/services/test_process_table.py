"""The container's processes, as far as they can be seen."""

import subprocess
import sys
from pathlib import Path

import pytest

# Root's own process 1 is another user's to whom this becomes, and hidepid keeps its files from him.
_LOOK = """
import os, subprocess, sys
subprocess.run(["mount", "-t", "proc", "-o", "hidepid=1", "proc", "/proc"], check=True)
from morpheus_boot.services.process_table import lives, read_process_table
ours = os.fork()
if ours == 0:
    os.setgid(65534)
    os.setuid(65534)
    seen = [entry.pid for entry in read_process_table()]
    assert os.getpid() in seen and 1 not in seen, seen
    assert not lives(1)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(ours, 0)[1]))
"""


def test_the_processes_of_others_that_may_not_be_seen_are_passed_over() -> None:
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    mount = ["mount", "-t", "proc", "-o", "hidepid=1", "proc", "/proc"]
    tried = subprocess.run([*enter, *mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"/proc can't be mounted so here ({tried.stderr.strip()})")

    ended = subprocess.run(
        [*enter, sys.executable, "-c", _LOOK],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
