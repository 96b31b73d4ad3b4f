"""The environment: what ends up below the local folder, and what is said when it can't."""

import fcntl
import os
import sys
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from morpheus_boot.errors import NotSetUp, OriginUnavailable, StorageFailed, WaitedTooLong
from morpheus_boot.start.environment import make_environment
from morpheus_boot.start.installed import hold_environment
from tests.package_index import PackageIndex, sample_lock
from tests.pythons import python_without, run
from tests.testbed.mounts import mounted

REPOSITORY = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
NOTHING_LISTENS = "http://127.0.0.1:9/simple"
MAKE = """
import os, sys
from pathlib import Path
from morpheus_boot.errors import MorpheusError
from morpheus_boot.start.environment import make_environment
try:
    make_environment(Path(sys.argv[1]), Path(sys.argv[2]), os.environ)
except MorpheusError as error:
    sys.exit(f"{error.exit_code}: {error}")
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(sample_lock())
    return path


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The only folder of PATH, so that no uv of this machine is found."""
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


@pytest.fixture
def environ(tools: Path, tmp_path: Path, index: PackageIndex) -> dict[str, str]:
    """A host that knows this index, and no configuration of this machine's pip."""
    return {
        "PATH": str(tools),
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "1",
        "PIP_INDEX_URL": index.url,
    }


def make_with(
    python: Path, lock: Path, environ: dict[str, str], folder: Path | None = None
) -> CompletedProcess[str]:
    """``python`` makes the environment below ``local``, run in ``folder``."""
    command: list[str | Path] = [python, "-P", "-s", "-c", MAKE, lock.parent / "local", lock]
    return run(command, {**environ, "PYTHONPATH": str(REPOSITORY)}, folder)


def host_with_a_pip(folder: Path) -> Path:
    """Where the packages of a Python below ``folder`` lie, which says that it has a new pip."""
    run([sys.executable, "-m", "venv", "--without-pip", folder / "host"])
    [site] = (folder / "host").glob("lib/python3*/site-packages")
    (site / "pip-99.0.dist-info").mkdir()
    (site / "pip-99.0.dist-info" / "METADATA").write_text("Name: pip\nVersion: 99.0\n")
    return site


def sample_value(venv: Path) -> str:
    ended = run([venv / "bin" / "python", "-c", "import morpheus_sample as s; print(s.VERSION)"])
    return ended.stdout.strip() or ended.stderr


def environment_left(folder: Path, python: str, lock: str | None) -> Path:
    """What an earlier build left: whole with a lock and a Python that exists."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(python)
    if lock is not None:
        (folder / "lock.txt").write_text(lock)
    return folder


def test_a_python_without_pip_makes_a_whole_environment_from_the_index_alone(
    lock: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    python = python_without(tmp_path / "bare", "pip", "ensurepip")

    ended = make_with(python, lock, environ)

    assert ended.returncode == 0, ended.stderr
    (venv,) = (tmp_path / "local").glob("venv-*")
    assert sample_value(venv) == "1.0"
    assert (venv / "lock.txt").read_text() == lock.read_text()
    assert list(venv.rglob("morpheus_sample.*.pyc"))
    assert not list(venv.glob("*.whl"))


@pytest.mark.parametrize("fails", [False, True])
def test_uv_is_used_where_there_is_one_and_pip_where_it_fails(
    lock: Path,
    tools: Path,
    environ: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    fails: bool,
) -> None:
    if fails:
        (tools / "uv").write_text("#!/bin/sh\necho 'error: too old' >&2\nexit 2\n")
        (tools / "uv").chmod(0o755)
    else:
        (tools / "uv").symlink_to(UV)
        environ |= {"UV_DEFAULT_INDEX": environ["PIP_INDEX_URL"], "PIP_INDEX_URL": NOTHING_LISTENS}

    assert sample_value(make_environment(lock.parent / "local", lock, environ)) == "1.0"

    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warnings == (["uv can't install (error: too old): trying pip"] if fails else [])


def test_nothing_in_the_working_directory_is_taken_for_pip_or_a_part_of_it(
    lock: Path, pip_wheel: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    zipfile.ZipFile(pip_wheel).extractall(host_with_a_pip(tmp_path))
    folder = tmp_path / "somewhere"
    folder.mkdir()
    for name in ("pip.py", "typing.py"):
        (folder / name).write_text("raise SystemExit('taken from the working directory')\n")

    ended = make_with(tmp_path / "host" / "bin" / "python", lock, environ, folder)

    assert ended.returncode == 0, ended.stderr
    assert "fetching one" not in ended.stderr


def test_an_environment_of_the_same_lock_is_found_and_nobody_is_asked(
    lock: Path, tmp_path: Path
) -> None:
    there = environment_left(tmp_path / "local" / "venv-there", sys.executable, sample_lock())

    assert make_environment(tmp_path / "local", lock, {"PIP_INDEX_URL": NOTHING_LISTENS}) == there


def test_what_a_killed_build_left_and_what_nobody_runs_is_removed_and_what_runs_stays(
    lock: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    local = tmp_path / "local"
    environment_left(local / "venv-killed", sys.executable, None)
    environment_left(local / "venv-orphan", "/python/that/was/upgraded/away", sample_lock())
    environment_left(local / "venv-old", sys.executable, "an old lock")
    running = environment_left(local / "venv-running", sys.executable, "another lock")
    held = hold_environment(running)
    assert held is not None

    with held:
        venv = make_environment(local, lock, environ)

    assert set(local.glob("venv-*")) == {venv, running}
    assert sample_value(venv) == "1.0"


def test_a_folder_where_nothing_may_be_executed_is_refused_before_anything_is_made(
    lock: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "local", "size=1m,noexec") as local:
        with pytest.raises(NotSetUp, match="noexec; set MORPHEUS_LOCAL_DIR"):
            make_environment(local, lock, {})
        assert not list(local.iterdir())


@pytest.mark.parametrize(
    ("digest", "variables", "cause"),
    [
        ("0" * 64, {}, "DO NOT MATCH THE HASHES"),
        (None, {"PIP_EXTRA_INDEX_URL": "", "PIP_INDEX_URL": NOTHING_LISTENS}, "Connection refused"),
    ],
)
def test_what_the_index_does_not_give_is_named_and_leaves_nothing(
    lock: Path, environ: dict[str, str], digest: str | None, variables: dict[str, str], cause: str
) -> None:
    lock.write_text(sample_lock(digest) if digest else sample_lock())

    with pytest.raises(OriginUnavailable, match=cause):
        make_environment(lock.parent / "local", lock, environ | variables)

    assert not list((lock.parent / "local").glob("venv-*"))


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "74: our environment: no space is left on the local disk; ",
        ),
        (
            "WARNING: Retrying after connection broken by 'Refused()': /simple/x/\nERROR: No matching x",
            "69: package index: can't be reached ('Refused()': /simple/x/); ",
        ),
        (
            "WARNING: old\nERROR: No matching\n  distribution\n",
            "69: package index: No matching; ",
        ),
        ("", "69: package index: pip said nothing; "),
    ],
)
def test_what_pip_says_is_told_in_one_line(
    lock: Path, environ: dict[str, str], tmp_path: Path, said: str, error: str
) -> None:
    site = host_with_a_pip(tmp_path)
    (site / "pip.py").write_text(f"import sys\nsys.stderr.write({said!r})\nsys.exit(1)\n")

    ended = make_with(tmp_path / "host" / "bin" / "python", lock, environ)

    assert ended.stderr.splitlines()[-1].startswith(error)


def test_a_lock_that_another_start_keeps_is_waited_for_no_longer_than_said(
    lock: Path, tmp_path: Path
) -> None:
    with (tmp_path / "venv.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(WaitedTooLong, match="another start has held it"):
            make_environment(tmp_path, lock, {}, lock_timeout_s=0.2)


def test_a_local_folder_that_cannot_be_made_is_named_with_the_variable(lock: Path) -> None:
    with pytest.raises(StorageFailed, match=r"/proc/local can't be written .*MORPHEUS_LOCAL_DIR"):
        make_environment(Path("/proc/local"), lock, {})


def test_a_python_that_makes_no_environments_is_named(
    lock: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    ended = make_with(python_without(tmp_path / "bare", "venv"), lock, environ)

    assert ended.stderr.startswith("78: Python: ")
    assert "can't make a virtual environment (" in ended.stderr
    assert "No module named venv" in ended.stderr
