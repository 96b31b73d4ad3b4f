"""pod_start.sh as a user meets it: real runs on a copy of the repository."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.package_index import SAMPLE_PAGE, SAMPLE_WHEEL, hanging, package_index, sample_lock
from tests.pythons import base_python, run
from tests.services.watched import runs
from tests.start.host import REPOSITORY, Host, checkout_below, tools_below
from tests.wait import wait_until

NOTHING_LISTENS = "http://127.0.0.1:9/simple"


def sourced(command: str, *arguments: str | Path, **environ: str | Path) -> str:
    """What ``command`` prints after pod_start.sh has been sourced, on a host without any Python but those of PATH."""
    script = f'source "$1"; shift; PYTHON_FOLDERS=(); {command}'
    ended = run(
        ["/bin/bash", "-c", script, "bash", REPOSITORY / "pod_start.sh", *arguments],
        {name: str(value) for name, value in environ.items()},
    )
    return ended.stdout.removesuffix("\n") if ended.returncode == 0 else f"{ended}"


def test_the_first_start_makes_the_environment_and_becomes_the_program(
    fresh: Host, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    process = fresh.start(
        *("up", "a b", "*"),
        PIP_TARGET=elsewhere,
        PIP_USER="1",
        PYTHONHOME="/another/python",
        PYTHONPATH="/user's own",
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err

    said = json.loads(out)
    assert (said["value"], said["arguments"]) == ("1.0", ["up", "a b", "*"])
    assert (said["folder"], said["pid"]) == (str(Path.cwd()), process.pid)
    assert said["pythonpath"] == f"{fresh.root}:/user's own"
    assert Path(said["prefix"]).parent == fresh.local
    assert "WARNING" not in err
    assert not elsewhere.exists()


def test_the_second_start_runs_no_python_but_the_environments_own(
    warm: Host, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    tools = tools_below(tmp_path / "tools", python3=f"echo asked > '{asked}'; exit 1")

    said = warm.said(PATH=tools)

    assert Path(said["prefix"]).parent == warm.local
    assert said["stderr"] == ""
    assert not asked.exists()


def test_it_is_found_through_a_link_and_from_any_folder_and_takes_nothing_from_there(
    warm: Host, tmp_path: Path
) -> None:
    (tmp_path / "morpheus_sample.py").write_text("VERSION = 13\n")
    (tmp_path / "link").symlink_to(warm.root / "pod_start.sh")

    said = json.loads(run(["bash", "link", "plan"], warm.environ(), tmp_path).stdout)

    assert (said["value"], said["folder"]) == ("1.0", str(tmp_path))
    assert said["pythonpath"] == str(warm.root)


@pytest.mark.parametrize("value", [" {local}\t", "~/local folder"])
def test_a_local_folder_in_any_form_that_the_settings_take_holds_one_environment(
    warm: Host, value: str
) -> None:
    given = value.format(local=warm.local)
    there = set(warm.local.glob("venv-*"))

    said = warm.said(MORPHEUS_LOCAL_DIR=given, HOME=warm.local.parent)

    assert said["value"] == "1.0"
    assert set(warm.local.glob("venv-*")) == there


@pytest.mark.parametrize("lacks", ["nothing", "its python", "its lock", "our lock"])
def test_an_environment_counts_only_whole_and_of_the_same_lock(
    fresh: Host, tmp_path: Path, lacks: str
) -> None:
    venv = fresh.local / "venv-there"
    (venv / "bin").mkdir(parents=True)
    if lacks != "its python":
        (venv / "bin" / "python").write_text("#!/bin/sh\necho taken\n")
        (venv / "bin" / "python").chmod(0o755)
    if lacks != "its lock":
        (venv / "lock.txt").write_text("another" if lacks == "our lock" else sample_lock())
    tools = tools_below(tmp_path / "tools", python3="[ $1 = -I ] && echo $0 || echo made")

    assert fresh.run(PATH=tools).stdout == ("taken\n" if lacks == "nothing" else "made\n")


def test_the_programs_exit_code_is_its_own_and_a_signal_reaches_it(warm: Host) -> None:
    assert warm.run("seven").returncode == 7
    process = warm.start("wait")
    assert process.stdout is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None

    process.terminate()

    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 5


@pytest.mark.parametrize("damaged", [False, True])
def test_the_next_container_takes_its_environment_from_the_volume_unless_it_is_damaged(
    warm: Host, fresh: Host, tmp_path: Path, damaged: bool
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    warm.said("keep", "--volume", volume)
    (archive,) = volume.rglob("*.tar.gz")
    if damaged:
        archive.write_bytes(archive.read_bytes()[:-100])

    said = fresh.said(
        "fill",
        MORPHEUS_VOLUME=volume,
        PIP_INDEX_URL=fresh.index.url if damaged else NOTHING_LISTENS,
    )

    assert said["value"] == "1.0"
    assert Path(said["prefix"]).parent == fresh.local
    assert ("its packages come from the volume" in said["stderr"]) is not damaged
    assert archive.exists() is not damaged


def test_two_starts_at_once_make_one_environment_and_both_use_it(fresh: Host) -> None:
    fresh.index.asked.clear()

    processes = [fresh.start("one"), fresh.start("two")]
    said = [json.loads(process.communicate(timeout=60)[0]) for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    [made] = fresh.local.glob("venv-*")
    assert {one["prefix"] for one in said} == {str(made)}
    assert fresh.index.paths().count(f"/files/{SAMPLE_WHEEL}") == 1


# What is told, the signal, and the code that the program itself would end with.
STOPS = [
    ([], signal.SIGTERM, 0),
    (["-v", "--volume", "plan", "files"], signal.SIGINT, 0),
    (["--models", "plan"], signal.SIGHUP, 0),
    (["plan"], signal.SIGTERM, 143),
    (["fill"], signal.SIGINT, 130),
    (["plan"], signal.SIGHUP, 129),
]


# Once Python runs, options may stand before the command.
@pytest.mark.parametrize(
    ("arguments", "number", "code"), [*STOPS, (["-q", "plan"], signal.SIGTERM, 143)]
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
        assert not list(host.local.glob("venv-*"))


@pytest.mark.parametrize(("arguments", "number", "code"), STOPS)
def test_a_stop_while_a_python_is_looked_for_ends_all_of_it(
    fresh: Host, tmp_path: Path, arguments: list[str], number: int, code: int
) -> None:
    looking = tmp_path / "looking"
    slow = f"echo $$ > '{looking}.part'; /bin/mv '{looking}.part' '{looking}'; exec /bin/sleep 1000"
    tools = tools_below(tmp_path / "tools", python3=slow)
    process = fresh.start(*arguments, PATH=tools)
    wait_until(looking.exists)

    process.send_signal(number)

    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == code
    wait_until(lambda: not runs(int(looking.read_text())))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a namespace of processes")
def test_as_the_containers_first_process_it_obeys_a_stop_as_well(
    fresh: Host, tmp_path: Path
) -> None:
    looking = tmp_path / "looking"
    tools = tools_below(tmp_path / "tools", python3=f": > '{looking}'; exec /bin/sleep 1000")
    command = ["unshare", "--pid", "--fork", "--kill-child", str(fresh.root / "pod_start.sh")]
    with subprocess.Popen(command, env=fresh.environ(PATH=f"{tools}:/usr/bin")) as process:
        wait_until(looking.exists)
        [first] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

        os.kill(int(first), signal.SIGTERM)

        assert process.wait(10) == 0


def test_a_build_that_was_killed_is_made_again(fresh: Host, pip_wheel: Path) -> None:
    with package_index(hanging(pip_wheel)) as index:
        host = Host(fresh.root, fresh.tools, fresh.local, index)
        process = host.start()
        wait_until(lambda: SAMPLE_PAGE in index.paths(), timeout_s=30)
        (killed,) = host.local.glob("venv-*")

        process.kill()
        for pid in host.processes():
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=10)

    assert fresh.said()["value"] == "1.0"
    assert not killed.exists()


def test_an_index_that_is_gone_is_69_and_named_on_the_last_line(fresh: Host) -> None:
    with package_index() as empty:
        ended = fresh.run(PIP_INDEX_URL=empty.url, COMFYUI_PORT="no port, as the boot will say")

    assert (ended.returncode, ended.stdout) == (69, "")
    assert ended.stderr.splitlines()[-1].endswith(
        f" ERROR: package index: {empty.url}/pip/ can't be read (HTTP Error 404: Not Found); "
        "name another index in PIP_INDEX_URL, or install pip or uv (exit 69)"
    )
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
@pytest.mark.parametrize("has_home", [True, False])
def test_who_is_not_root_gets_an_environment_in_the_own_cache_folder(
    fresh: Host, has_home: bool
) -> None:
    # Below /tmp itself: pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = checkout_below(folder)
        cache = folder / ".cache"
        cache.mkdir()
        shutil.chown(cache, 65534, 65534)
        where = {"HOME": folder} if has_home else {"XDG_CACHE_HOME": cache, "HOME": "/nowhere"}
        environ = fresh.environ(PATH=os.environ["PATH"], **where)
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

    assert sourced('host_python "$1"', tmp_path, PATH=tools) == str(base_python())


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

    assert sourced('host_python "$1"', tmp_path, PATH=tools) == str(base_python())
    assert brought.exists()
