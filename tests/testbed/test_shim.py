import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.testbed.shim import Shim

# A program that does once whatever is watched, and says how far it came.
PROGRAM = textwrap.dedent(
    """
    import fcntl, os, shutil, sys
    os.chdir(sys.argv[1])
    os.mkdir("d")
    fd = os.open("d/part", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 8)
    os.posix_fallocate(fd, 0, 8)
    os.write(fd, b"abcd")
    os.pwrite(fd, b"efgh", 4)
    os.writev(fd, [b"ab", b"cd"])
    os.pwritev(fd, [b"ef"], 0)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.fdatasync(fd)
    os.fsync(fd)
    os.close(fd)
    os.replace("d/part", os.path.abspath("final"))
    os.link("final", "second")
    os.symlink("final", "soft")
    with open("final", "r+b") as file, open("copy", "wb", buffering=0) as copy:
        os.copy_file_range(file.fileno(), copy.fileno(), 4)
        os.sendfile(copy.fileno(), file.fileno(), 0, 4)
    folder = os.open(".", os.O_RDONLY)
    os.fsync(folder)
    os.unlink("second", dir_fd=folder)
    os.remove("soft")
    os.rmdir("d")
    with open(sys.argv[2], "w") as outside:
        outside.write("not below the root")
    print("done")
    """
)
STEPS = """\
mkdir d
create d/part
truncate d/part
allocate d/part
write d/part
write d/part
write d/part
write d/part
flock d/part
sync d/part
sync d/part
close d/part
rename d/part final
link final second
symlink soft
open final
create copy
copy copy
copy copy
close copy
close final
sync .
unlink second
unlink soft
rmdir d
"""


def run(
    folder: Path, env: dict[str, str], program: str = PROGRAM
) -> subprocess.CompletedProcess[str]:
    root = folder / "root"
    root.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", program, root, folder / "outside"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_records_every_step_below_the_root_and_nothing_else(shim: Shim, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run(tmp_path, shim.env(root=tmp_path / "root", log=log))
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    calls = shim.calls(log)
    said = "".join(f"{' '.join(filter(None, (c.op, c.path, c.other)))}\n" for c in calls)
    assert said == STEPS
    assert [call.index for call in calls] == list(range(1, len(calls) + 1))


@pytest.mark.parametrize(("do", "published"), [("kill-before", False), ("kill-after", True)])
def test_it_kills_at_one_step_before_or_after(
    shim: Shim, tmp_path: Path, do: str, published: bool
) -> None:
    log = tmp_path / "log"
    rename = 1 + STEPS.splitlines().index("rename d/part final")
    done = run(tmp_path, shim.env(root=tmp_path / "root", log=log, at=rename, do=do))
    assert done.returncode == -signal.SIGKILL
    assert len(shim.calls(log)) == rename
    assert (tmp_path / "root" / "final").exists() is published


def test_it_fails_every_matching_call_from_the_nth_on(shim: Shim, tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, sys
        os.chdir(sys.argv[1])
        for name in ("a.json", "b.part", "c.part", "d.part", "e.json"):
            try:
                with open(name, "wb") as file:
                    os.fsync(file.fileno())
                print(name, "ok")
            except OSError as error:
                print(name, os.strerror(error.errno))
        """
    )
    env = shim.env(root=tmp_path / "root", match="sync:.part", since=2, do="errno:EIO")
    failed = "Input/output error"
    assert run(tmp_path, env, program).stdout.splitlines() == [
        *("a.json ok", "b.part ok", f"c.part {failed}", f"d.part {failed}", "e.json ok")
    ]
