"""The shim misses no call that changes a file: who kills a program at each of them has all."""

import sys
import textwrap
from pathlib import Path

from tests.pythons import run
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


def test_it_records_every_step_below_the_root_and_nothing_else(shim: Shim, tmp_path: Path) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    root.mkdir()

    done = run(
        [sys.executable, "-c", PROGRAM, root, tmp_path / "outside"], shim.env(root=root, log=log)
    )

    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    calls = shim.calls(log)
    assert [" ".join(filter(None, (c.op, c.path, c.other))) for c in calls] == STEPS.splitlines()
    assert [call.index for call in calls] == list(range(1, len(calls) + 1))
