import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.testbed.moosefs import MooseFS, sweep
from tests.wait import wait_until

# Takes a lock, says so, and keeps it until it is killed.
HOLDER = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def write_and_sync(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def can_lock(path: Path) -> bool:
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def processes_of(root: Path) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if str(root) in (command := file.read_text(errors="replace")):
                found.append(command)
    return found


def test_two_hosts_see_one_volume(moosefs: MooseFS) -> None:
    name = moosefs.fresh()
    write_and_sync(moosefs.a / name / "f", b"from A")
    assert wait_until(lambda: (moosefs.b / name / "f").read_bytes() == b"from A")
    assert (moosefs.a / name).stat().st_dev != (moosefs.b / name).stat().st_dev


def test_a_lock_excludes_the_other_host_until_its_holder_is_killed(moosefs: MooseFS) -> None:
    name = moosefs.fresh()
    command = [sys.executable, "-c", HOLDER, str(moosefs.a / name / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not can_lock(moosefs.b / name / "lock")
        holder.kill()
    wait_until(lambda: can_lock(moosefs.b / name / "lock"))


def test_a_quota_is_hit_at_sync_if_not_before(moosefs: MooseFS) -> None:
    name = moosefs.fresh()
    moosefs.quota(name, 1_000_000)
    with pytest.raises(OSError) as caught:
        write_and_sync(moosefs.a / name / "f", bytes(2_000_000))
    assert caught.value.errno == errno.EDQUOT


def test_a_cut_link_hangs_and_goes_on_when_it_is_back(moosefs: MooseFS) -> None:
    name = moosefs.fresh()
    moosefs.cut("a")
    done = threading.Event()

    def write() -> None:
        write_and_sync(moosefs.a / name / "f", b"late")
        done.set()

    writing = threading.Thread(target=write)
    writing.start()
    write_and_sync(moosefs.b / name / "g", b"the other host goes on")
    assert not done.wait(0.3)
    moosefs.restore("a")
    writing.join(30)
    assert done.is_set()
    assert wait_until(lambda: (moosefs.b / name / "f").read_bytes() == b"late")


def test_a_second_one_runs_beside_and_goes_away_with_a_hung_call(moosefs: MooseFS) -> None:
    with MooseFS() as second:
        assert not (second.a / moosefs.fresh()).exists()
        second.cut("a")
        hung = subprocess.Popen(["stat", second.a / "hung"], stderr=subprocess.DEVNULL)
        root = second.a.parent
    assert hung.wait(10) != 0
    assert not root.exists()


def test_what_a_killed_run_left_behind_is_swept_away(moosefs: MooseFS) -> None:
    program = (
        "import sys; from tests.testbed.moosefs import MooseFS; "
        "print(MooseFS().a, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        left = Path(run.stdout.readline().strip())
        sweep()
        assert os.path.ismount(left)
        assert len(processes_of(left.parent)) >= 4
        run.kill()
    wait_until(lambda: not processes_of(left.parent))
    sweep()
    assert not left.parent.exists()
    assert not list(Path("/run/netns").glob(f"mfs-{run.pid}-*"))
    assert os.path.ismount(moosefs.a)
