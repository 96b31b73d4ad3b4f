"""pod_start.sh as a user meets it: real runs on a copy of the repository with a program that says what it got."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from morpheus_boot.config.argv import command_in
from morpheus_boot.config.settings import read_settings
from tests.package_index import (
    SAMPLE_PAGE,
    SAMPLE_WHEEL,
    PackageIndex,
    hanging,
    package_index,
    sample_lock,
    with_sample,
)
from tests.pythons import base_python, run
from tests.services.watched import runs
from tests.wait import wait_until

REPOSITORY: Final = Path(__file__).resolve().parent.parent
POD_START: Final = REPOSITORY / "pod_start.sh"
TOOLS: Final = ("bash", "readlink")
PROGRAM: Final = """
import json, os, signal, sys
import morpheus_sample
print(json.dumps({
    "arguments": sys.argv[1:],
    "folder": os.getcwd(),
    "pid": os.getpid(),
    "prefix": sys.prefix,
    "pythonpath": os.environ["PYTHONPATH"],
    "value": morpheus_sample.VALUE,
}), flush=True)
if "keep" in sys.argv:
    from contextlib import nullcontext
    from pathlib import Path
    from morpheus_boot.start.installed import keep_environment
    from morpheus_boot.volume.layout import Layout
    volume = Path(sys.argv[sys.argv.index("--volume") + 1])
    keep_environment(Layout(volume), Path(sys.prefix), nullcontext)
if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    print("waiting", flush=True)
    signal.pause()
sys.exit(7 if "seven" in sys.argv else 0)
"""


def checkout_below(folder: Path) -> Path:
    """A copy of what a start needs, with a program that tells, below a path with a space."""
    root = folder / "the repository"
    shutil.copytree(
        REPOSITORY / "morpheus_boot",
        root / "morpheus_boot",
        ignore=shutil.ignore_patterns("__pycache__", "[a-z]*/"),
    )
    shutil.copy(POD_START, root)
    (root / "morpheus_boot" / "__main__.py").write_text(PROGRAM)
    (root / "morpheus_boot" / "requirements.txt").write_text(sample_lock())
    return root


def tools_below(folder: Path, **more: str | Path) -> Path:
    """A folder for PATH with what pod_start.sh itself calls, and ``more``: scripts, or programs to link to."""
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name) or name)
    for name, program in more.items():
        if isinstance(program, Path):
            (folder / name).symlink_to(program)
        else:
            (folder / name).write_text(f"#!/bin/sh\n{program}\n")
            (folder / name).chmod(0o755)
    return folder


@dataclass(frozen=True)
class Host:
    """A machine with one Python and one package index, and a copy of the repository on it."""

    root: Path
    tools: Path
    local: Path
    index: PackageIndex

    def environ(self, **more: str | Path) -> dict[str, str]:
        own = {
            "PATH": self.tools,
            "MORPHEUS_LOCAL_DIR": self.local,
            "PIP_INDEX_URL": self.index.url,
            "PIP_CONFIG_FILE": os.devnull,
        }
        return {name: str(value) for name, value in {**own, **more}.items()}

    def start(self, *arguments: str, **more: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "pod_start.sh", *arguments],
            env=self.environ(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[int]:
        """What runs here that names the local folder on its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if os.fsencode(self.local) in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
                continue
        return found


@pytest.fixture(scope="module")
def index(pip_wheel: Path) -> Iterator[PackageIndex]:
    with package_index(with_sample(pip_wheel)) as one:
        yield one


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pod_start")


@pytest.fixture(scope="module")
def shared(module_folder: Path, index: PackageIndex) -> Host:
    """A host whose environment tests may share, once it is made."""
    return Host(
        checkout_below(module_folder),
        tools_below(module_folder / "tools", python3=base_python()),
        module_folder / "local folder",
        index,
    )


@pytest.fixture
def fresh(shared: Host, tmp_path: Path) -> Host:
    """The same machine, with nothing made on it yet."""
    return Host(shared.root, shared.tools, tmp_path / "local", shared.index)


@pytest.fixture(scope="module")
def first(shared: Host, module_folder: Path) -> dict[str, Any]:
    """What the program said in the first start, under variables that would send its packages elsewhere."""
    elsewhere = module_folder / "elsewhere"
    process = shared.start(
        "up", "a b", "*", PIP_TARGET=elsewhere, PIP_USER="1", PYTHONPATH="/user's own"
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not elsewhere.exists()
    return {**json.loads(out), "started_pid": process.pid, "stderr": err}


@pytest.fixture
def warm(shared: Host, first: dict[str, Any]) -> Host:
    """The shared host after that."""
    assert first["value"] == 42
    return shared


def functions(command: str, *arguments: str | Path, **environ: str | Path) -> str:
    """What ``command`` prints after pod_start.sh has been sourced, on a host without any Python."""
    script = f'source "$1"; shift; PYTHON_FOLDERS=(); {command}'
    ended = run(
        ["/bin/bash", "-c", script, "bash", POD_START, *arguments],
        {name: str(value) for name, value in environ.items()},
    )
    return ended.stdout.removesuffix("\n") if ended.returncode == 0 else f"{ended}"


def test_the_first_start_makes_the_environment_and_becomes_the_program(
    first: dict[str, Any], shared: Host
) -> None:
    assert first["value"] == 42
    assert first["arguments"] == ["up", "a b", "*"]
    assert first["folder"] == str(Path.cwd())
    assert first["pid"] == first["started_pid"]
    assert first["pythonpath"] == f"{shared.root}:/user's own"
    assert Path(first["prefix"]).parent == shared.local
    assert "WARNING" not in first["stderr"]


def test_the_second_start_runs_no_python_but_the_environments_own(
    warm: Host, first: dict[str, Any], tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    tools = tools_below(tmp_path / "tools", python3=f"echo asked > '{asked}'; exit 1")

    ended = run([warm.root / "pod_start.sh"], warm.environ(PATH=tools))

    assert ended.returncode == 0
    assert json.loads(ended.stdout)["prefix"] == first["prefix"]
    assert ended.stderr == ""
    assert not asked.exists()


def test_it_is_found_through_a_link_and_from_any_folder_and_takes_nothing_from_there(
    warm: Host, tmp_path: Path
) -> None:
    (tmp_path / "morpheus_sample.py").write_text("VALUE = 13\n")
    (tmp_path / "link").symlink_to(warm.root / "pod_start.sh")

    ended = run(["bash", "link", "plan"], warm.environ(), tmp_path)

    said = json.loads(ended.stdout)
    assert (said["value"], said["folder"]) == (42, str(tmp_path))
    assert said["pythonpath"] == str(warm.root)


def test_the_programs_exit_code_is_its_own(warm: Host) -> None:
    assert run([warm.root / "pod_start.sh", "seven"], warm.environ()).returncode == 7


def test_a_signal_reaches_the_program(warm: Host) -> None:
    process = warm.start("wait")
    assert process.stdout is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None

    process.terminate()

    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 5


def test_the_next_container_takes_its_environment_from_the_volume_and_asks_no_index(
    warm: Host, fresh: Host, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    assert (
        run([warm.root / "pod_start.sh", "keep", "--volume", volume], warm.environ()).returncode
        == 0
    )

    ended = run(
        [fresh.root / "pod_start.sh", "fill"],
        fresh.environ(MORPHEUS_VOLUME=volume, PIP_INDEX_URL="http://127.0.0.1:9/simple"),
    )

    assert ended.returncode == 0, ended.stderr
    assert "its packages come from the volume" in ended.stderr
    said = json.loads(ended.stdout)
    assert said["value"] == 42
    assert Path(said["prefix"]).parent == fresh.local


def test_a_damaged_environment_on_the_volume_is_installed_anew(
    warm: Host, fresh: Host, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    assert (
        run([warm.root / "pod_start.sh", "keep", "--volume", volume], warm.environ()).returncode
        == 0
    )
    (archive,) = volume.rglob("*.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-100])

    ended = run([fresh.root / "pod_start.sh", f"--volume={volume}"], fresh.environ())

    assert ended.returncode == 0, ended.stderr
    assert "damaged" in ended.stderr
    assert json.loads(ended.stdout)["value"] == 42
    assert not archive.exists()


def test_two_starts_at_once_make_one_environment_and_both_use_it(fresh: Host) -> None:
    fresh.index.asked.clear()

    processes = [fresh.start("one"), fresh.start("two")]
    said = [json.loads(process.communicate(timeout=120)[0]) for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert {one["prefix"] for one in said} == {str(venv) for venv in fresh.local.glob("venv-*")}
    assert len({one["prefix"] for one in said}) == 1
    assert fresh.index.paths().count(f"/files/{SAMPLE_WHEEL}") == 1


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [
        ([], signal.SIGTERM, 0),
        (["-v", "--volume", "plan", "files"], signal.SIGINT, 0),
        (["-q", "plan"], signal.SIGTERM, 143),
        (["fill"], signal.SIGINT, 130),
    ],
)
def test_a_stop_while_the_environment_is_made_ends_all_of_it(
    fresh: Host, pip_wheel: Path, arguments: list[str], number: int, code: int
) -> None:
    with package_index(hanging(pip_wheel)) as index:
        host = Host(fresh.root, fresh.tools, fresh.local, index)
        process = host.start(*arguments)
        wait_until(lambda: SAMPLE_PAGE in index.paths(), timeout_s=30)
        assert host.processes()

        process.send_signal(number)

        process.communicate(timeout=10)
        assert process.returncode == code
        assert not host.processes()


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [
        ([], signal.SIGTERM, 0),
        (["files"], signal.SIGHUP, 0),
        (["plan"], signal.SIGTERM, 143),
        (["plan"], signal.SIGHUP, 129),
    ],
)
def test_a_stop_while_a_python_is_looked_for_ends_all_of_it(
    fresh: Host, tmp_path: Path, arguments: list[str], number: int, code: int
) -> None:
    looking = tmp_path / "looking"
    slow = f"echo $$ > '{looking}.part'; /bin/mv '{looking}.part' '{looking}'; exec /bin/sleep 1000"
    tools = tools_below(tmp_path / "tools", python3=slow)
    process = fresh.start(*arguments, PATH=tools)
    wait_until(looking.exists)

    process.send_signal(number)

    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (code, "", "")
    wait_until(lambda: not runs(int(looking.read_text())))


def test_a_build_that_was_killed_is_made_again(fresh: Host, pip_wheel: Path) -> None:
    with package_index(hanging(pip_wheel)) as index:
        host = Host(fresh.root, fresh.tools, fresh.local, index)
        process = host.start()
        wait_until(lambda: SAMPLE_PAGE in index.paths(), timeout_s=30)
        (killed,) = host.local.glob("venv-*")

        process.kill()
        for pid in host.processes():
            os.kill(pid, signal.SIGKILL)
        process.communicate()

    ended = run([fresh.root / "pod_start.sh"], fresh.environ())

    assert json.loads(ended.stdout)["value"] == 42, ended.stderr
    assert not killed.exists()


def test_an_index_that_is_gone_is_69_and_named_on_the_last_line(fresh: Host) -> None:
    with package_index() as empty:
        ended = run([fresh.root / "pod_start.sh"], fresh.environ(PIP_INDEX_URL=empty.url))

    assert (ended.returncode, ended.stdout) == (69, "")
    assert "ERROR: package index: " in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_who_is_not_root_gets_an_environment_in_the_own_cache_folder(fresh: Host) -> None:
    # Below /tmp itself: pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = checkout_below(folder)
        cache = folder / "cache"
        cache.mkdir()
        shutil.chown(cache, 65534, 65534)
        environ = fresh.environ(XDG_CACHE_HOME=cache, PATH=os.environ["PATH"])
        del environ["MORPHEUS_LOCAL_DIR"]

        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        ended = run([*nobody, root / "pod_start.sh"], environ, Path("/"))

        assert ended.returncode == 0, ended.stderr
        assert Path(json.loads(ended.stdout)["prefix"]).parent == cache / "morpheus"


def test_no_fitting_python_is_78_with_what_was_tried_and_the_mend(
    shared: Host, tmp_path: Path
) -> None:
    tools = tools_below(tmp_path / "tools", python3="exit 1")
    script = 'source "$1"; PYTHON_FOLDERS=(); main up'

    ended = run(
        ["/bin/bash", "-c", script, "bash", shared.root / "pod_start.sh"],
        shared.environ(PATH=tools, MORPHEUS_LOCAL_DIR=tmp_path),
    )

    assert ended.returncode == 78
    assert ended.stderr == (
        "pod_start.sh: Python: none of version 3.11 or newer with venv and ssl was found (tried python3 python3.14 "
        "python3.13 python3.12 python3.11 python3.15 python and uv); install one, whole "
        "(apt-get install python3 python3-venv) (exit 78)\n"
    )


def test_a_python_that_is_too_old_or_a_shim_of_none_is_passed_over(tmp_path: Path) -> None:
    tools = tools_below(
        tmp_path / "tools",
        python3="echo 'no module named fcntl' >&2; exit 1",
        python=base_python(),
        **{"python3.13": "echo 'pyenv: python3.13: command not found' >&2; exit 127"},
    )

    assert functions('find_python "$1"', tmp_path, PATH=tools) == str(base_python())


def test_uv_brings_a_python_below_the_local_folder_where_there_is_none(tmp_path: Path) -> None:
    brought = tmp_path / "python" / "python3.12"
    tools = tools_below(
        tmp_path / "tools",
        uv=f"""case "$*" in
        'python install --quiet 3.12')
          /bin/mkdir "$UV_PYTHON_INSTALL_DIR"
          exec /bin/ln -s '{base_python()}' "$UV_PYTHON_INSTALL_DIR/python3.12" ;;
        'python find 3.12') echo '{brought}' ;;
        *) exit 2 ;;
        esac""",
    )

    assert functions('find_python "$1"', tmp_path, PATH=tools) == str(base_python())
    assert brought.exists()


def test_an_environment_counts_only_whole_with_its_python_and_of_the_same_lock(
    tmp_path: Path,
) -> None:
    lock, whole = tmp_path / "lock", tmp_path / "venv-whole"
    lock.write_text(sample_lock())
    for name, text in {"a": None, "b": "another lock", "whole": sample_lock()}.items():
        (tmp_path / f"venv-{name}" / "bin").mkdir(parents=True)
        (tmp_path / f"venv-{name}" / "bin" / "python").symlink_to(base_python())
        if text is not None:
            (tmp_path / f"venv-{name}" / "lock.txt").write_text(text)

    found = functions('find_environment "$@"', tmp_path, lock)
    (whole / "bin" / "python").unlink()
    found_without_python = functions('find_environment "$@" || echo none', tmp_path, lock)

    assert (found, found_without_python) == (str(whole), "none")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"MORPHEUS_LOCAL_DIR": ""},
        {"MORPHEUS_LOCAL_DIR": " \t/with space at its ends "},
        {"MORPHEUS_LOCAL_DIR": "below/here"},
        {"MORPHEUS_LOCAL_DIR": "~/below home"},
        {"MORPHEUS_LOCAL_DIR": "~"},
        {"XDG_CACHE_HOME": "/some/cache"},
    ],
)
def test_the_local_folder_is_where_settings_say(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    found = functions("local_folder", HOME=tmp_path, **environ)

    assert Path(found) == read_settings(environ=environ).local_dir


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("", "up"),
        ("-v", "up"),
        ("files", "files"),
        ("--models X", "up"),
        ("--models plan", "up"),
        ("--models --volume plan", "plan"),
        ("--models", "up"),
        ("--models=X fill", "fill"),
        ("-q --log-format json plan --json", "plan"),
        ("import up", "import"),
        ("gc --forget up --apply", "gc"),
        ("--comfyui up --volume files verify", "verify"),
        ("--lock-timeout 7200", "up"),
        ("--retry-for 30 --lock-timeout 9 fill", "fill"),
        ("--forget files --jobs-older-than 9 gc", "gc"),
    ],
)
def test_shell_and_program_see_the_same_command(arguments: str, command: str) -> None:
    words = arguments.split()

    assert command_in(words) == functions('command_in "$@"', *words) == command
