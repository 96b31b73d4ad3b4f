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


def test_it_fails_one_call_by_its_index(shim: Shim, tmp_path: Path) -> None:
    write = 1 + STEPS.splitlines().index("write d/part")
    done = run(tmp_path, shim.env(root=tmp_path / "root", at=write, do="errno:EDQUOT"))
    assert "Disk quota exceeded" in done.stderr
    assert (tmp_path / "root" / "d" / "part").read_bytes() == bytes(8)


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


@pytest.mark.parametrize(
    ("match", "line"),
    [
        ("close", "os.close(os.open('x', os.O_WRONLY | os.O_CREAT))"),
        ("allocate", "os.posix_fallocate(os.open('x', os.O_WRONLY | os.O_CREAT), 0, 9)"),
        ("create", "open('x', 'w')"),
        ("rename", "os.rename('x', 'y')"),
        ("mkdir", "os.mkdir('x')"),
        ("flock", "import fcntl; fcntl.flock(os.open('.', os.O_RDONLY), fcntl.LOCK_EX)"),
    ],
)
def test_a_failing_call_of_each_kind_gives_its_errno(
    shim: Shim, tmp_path: Path, match: str, line: str
) -> None:
    program = f"import os, sys; os.chdir(sys.argv[1]); {line}"
    env = shim.env(root=tmp_path / "root", match=match, do="errno:ESTALE")
    assert "OSError: [Errno 116]" in run(tmp_path, env, program).stderr


def test_reading_back_can_fail_and_is_not_counted(shim: Shim, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "model").write_bytes(b"abc")
    program = "import sys; from pathlib import Path; print(Path(sys.argv[1], 'model').read_bytes())"
    log = tmp_path / "log"
    env = shim.env(root=tmp_path / "root", log=log, match="read:model", do="errno:EIO")
    assert "Input/output error" in run(tmp_path, env, program).stderr
    assert shim.calls(log) == ()


def test_a_deed_that_it_does_not_know_is_refused(shim: Shim, tmp_path: Path) -> None:
    done = run(tmp_path, shim.env(root=tmp_path / "root", at=1, do="errno:EWHATEVER"))
    assert (done.returncode, done.stdout) == (70, "")
    assert "errno:EWHATEVER" in done.stderr
