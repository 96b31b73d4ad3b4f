"""As PID 1 of a container: orphans become our children."""

import subprocess
import sys
from pathlib import Path

import pytest

_UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
_STORY = """
import os, signal, subprocess
from pathlib import Path
from tests.services.watched import Watched, program, runs, signal_us
from tests.wait import wait_until

assert os.getpid() == 1
watched = Watched()

def orphan():
    '''A service whose child leaves a child of its own, which ends once it is ours.'''
    watched.supervisor.start(program("one", "-c", ORPHAN))
    wait_until(lambda: bool(watched.said("one")))
    return int(watched.said("one")[0])

ORPHAN = '''
import os, signal
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        while os.getppid() != 1:
            pass
        print(os.getpid(), flush=True)
    os._exit(0)
os.wait()
signal.pause()
'''
"""


def _as_pid_one(story: str) -> str:
    """What ``story`` prints, told by a supervisor that is PID 1."""
    ended = subprocess.run(
        [*_UNSHARE, sys.executable, "-c", _STORY + story],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"a PID namespace can't be had here ({tried.stderr.strip()})")


def test_an_orphan_is_reaped() -> None:
    printed = _as_pid_one(
        """
def story():
    pid = orphan()
    stat = Path(f"/proc/{pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[:2] == ["Z", "1"])
    wait_until(lambda: not stat.exists())
    signal_us(signal.SIGTERM)

print(watched.supervisor.run(story))
"""
    )

    assert printed == "15\n"


def test_what_the_story_runs_itself_keeps_its_exit_code() -> None:
    printed = _as_pid_one(
        """
def story():
    git = subprocess.Popen(["sh", "-c", "exit 7"])
    wait_until(lambda: not runs(git.pid))
    pid = orphan()  # the loop has looked for orphans meanwhile, at the latest for this one
    print(git.wait())
    signal_us(signal.SIGTERM)

watched.supervisor.run(story)
"""
    )

    assert printed == "7\n"


def test_sigterm_stops_it_in_order() -> None:
    printed = _as_pid_one(
        """
def story():
    watched.start("one")
    subprocess.run(["sh", "-c", "kill -TERM 1"])

print(watched.supervisor.run(story), watched.said("one"))
"""
    )

    assert printed == "15 ['ready', 'SIGTERM']\n"
