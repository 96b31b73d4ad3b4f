"""The environment: what ends up below the local folder, and what is said when it can't."""

import fcntl
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_boot.errors import NotSetUp, OriginUnavailable, StorageFailed, WaitedTooLong
from morpheus_boot.start.environment import main, make_environment
from morpheus_boot.start.installed import hold_environment
from morpheus_boot.start.package_index import PIP, fetch_wheel, index_url
from tests.package_index import PackageIndex, package_index, sample_lock, with_sample
from tests.pythons import python_without, run
from tests.testbed.mounts import mounted
from tests.testbed.origin import Origin

REPOSITORY = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")
NOTHING_LISTENS = "http://127.0.0.1:9/simple"


@pytest.fixture
def index(pip_wheel: Path) -> Iterator[PackageIndex]:
    with package_index(with_sample(pip_wheel)) as one:
        yield one


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(sample_lock())
    return path


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of PATH, so that no uv of this machine is found; and no configuration of its pip."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in (name for name in os.environ if name.startswith(("PIP_", "UV_"))):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def use_index(monkeypatch: pytest.MonkeyPatch, url: str) -> dict[str, str]:
    monkeypatch.setenv("PIP_INDEX_URL", url)
    return {"PIP_INDEX_URL": url}


def sample_value(venv: Path) -> str:
    ended = run([venv / "bin" / "python", "-c", "import morpheus_sample as s; print(s.VALUE)"])
    return ended.stdout.strip() or ended.stderr


def environment_left(folder: Path, python: str, lock: str | None) -> Path:
    """What an earlier build left: whole with a lock and a Python that exists."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(python)
    if lock is not None:
        (folder / "lock.txt").write_text(lock)
    return folder


def test_a_python_without_pip_makes_a_whole_environment_from_the_index_alone(
    index: PackageIndex, lock: Path, tmp_path: Path
) -> None:
    python = python_without(tmp_path / "bare", "pip", "ensurepip")

    ended = run(
        [python, "-P", "-s", "-m", "morpheus_boot.start.environment", tmp_path / "local", lock],
        dict(os.environ, PIP_INDEX_URL=index.url, PYTHONPATH=str(REPOSITORY)),
    )

    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    (venv,) = (tmp_path / "local").glob("venv-*")
    assert sample_value(venv) == "42"
    assert (venv / "lock.txt").read_text() == lock.read_text()
    assert list(venv.rglob("morpheus_sample.*.pyc"))
    assert not list(venv.glob("*.whl"))


def test_uv_is_used_where_there_is_one(
    index: PackageIndex,
    lock: Path,
    tools: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tools / "uv").symlink_to(UV)
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)

    venv = make_environment(lock.parent / "local", lock, use_index(monkeypatch, NOTHING_LISTENS))

    assert sample_value(venv) == "42"
    assert "/simple/pip/" not in index.paths()
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_pip_goes_on_where_uv_fails(
    index: PackageIndex,
    lock: Path,
    tools: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tools / "uv").write_text("#!/bin/sh\necho 'error: too old' >&2\nexit 2\n")
    (tools / "uv").chmod(0o755)

    venv = make_environment(lock.parent / "local", lock, use_index(monkeypatch, index.url))

    assert sample_value(venv) == "42"
    assert "uv can't install (error: too old): trying pip" in caplog.text


def test_nothing_in_the_working_directory_is_taken_for_pip_or_a_part_of_it(
    index: PackageIndex, lock: Path, pip_wheel: Path, tmp_path: Path
) -> None:
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "host"])
    [site] = (tmp_path / "host").glob("lib/python3*/site-packages")
    zipfile.ZipFile(pip_wheel).extractall(site)
    folder = tmp_path / "somewhere"
    folder.mkdir()
    for name in ("pip.py", "typing.py"):
        (folder / name).write_text("raise SystemExit('taken from the working directory')\n")
    python = tmp_path / "host" / "bin" / "python"

    ended = run(
        [python, "-P", "-s", "-m", "morpheus_boot.start.environment", tmp_path / "local", lock],
        dict(os.environ, PIP_INDEX_URL=index.url, PYTHONPATH=str(REPOSITORY)),
        folder,
    )

    assert ended.returncode == 0, ended.stderr
    assert "fetching one" not in ended.stderr


def test_an_environment_of_the_same_lock_is_found_and_nobody_is_asked(
    lock: Path, tmp_path: Path
) -> None:
    there = environment_left(tmp_path / "local" / "venv-there", sys.executable, sample_lock())

    assert make_environment(tmp_path / "local", lock, {"PIP_INDEX_URL": NOTHING_LISTENS}) == there


def test_what_a_killed_build_left_and_what_nobody_runs_is_removed_and_what_runs_stays(
    index: PackageIndex, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local"
    environment_left(local / "venv-killed", sys.executable, None)
    environment_left(local / "venv-orphan", "/python/that/was/upgraded/away", sample_lock())
    environment_left(local / "venv-old", sys.executable, "an old lock")
    running = environment_left(local / "venv-running", sys.executable, "another lock")
    held = hold_environment(running)
    assert held is not None

    with held:
        venv = make_environment(local, lock, use_index(monkeypatch, index.url))

    assert set(local.glob("venv-*")) == {venv, running}
    assert sample_value(venv) == "42"


def test_a_folder_where_nothing_may_be_executed_is_refused_before_anything_is_made(
    lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath + ":/sbin")  # for mount(8)
    with mounted(tmp_path / "local", "size=1m,noexec") as local:
        with pytest.raises(NotSetUp, match="noexec; set MORPHEUS_LOCAL_DIR"):
            make_environment(local, lock, {})
        assert not list(local.iterdir())


def test_a_package_with_another_digest_than_the_locks_is_refused_and_leaves_nothing(
    index: PackageIndex, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.write_text(sample_lock("0" * 64))

    with pytest.raises(OriginUnavailable, match="DO NOT MATCH THE HASHES"):
        make_environment(tmp_path / "local", lock, use_index(monkeypatch, index.url))

    assert not list((tmp_path / "local").glob("venv-*"))


def test_an_index_that_pip_cannot_reach_is_named_as_such(
    index: PackageIndex, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_index(monkeypatch, NOTHING_LISTENS)

    with pytest.raises(OriginUnavailable, match=r"can't be reached .*Connection refused"):
        make_environment(tmp_path / "local", lock, {"PIP_INDEX_URL": index.url})


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


def test_the_program_says_one_line_and_exits_with_the_errors_code(
    lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMFYUI_PORT", "no port, which is the boot's to say")
    with package_index() as empty:
        use_index(monkeypatch, empty.url)

        code = main([str(tmp_path / "local"), str(lock)])

    assert code == 69
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(
            f" ERROR: package index: {empty.url}/pip/ can't be read (HTTP Error 404: Not Found); "
            "name another index in PIP_INDEX_URL, or install pip or uv (exit 69)"
        )
    )


def test_a_python_that_makes_no_environments_is_78(lock: Path, tmp_path: Path) -> None:
    python = python_without(tmp_path / "bare", "venv")

    ended = run(
        [python, "-P", "-s", "-m", "morpheus_boot.start.environment", tmp_path / "local", lock],
        dict(os.environ, PYTHONPATH=str(REPOSITORY)),
    )

    assert ended.returncode == 78
    assert "can't make a virtual environment (" in ended.stderr
    assert "No module named venv" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("environ", "files", "expected"),
    [
        ({}, {}, "https://pypi.org/simple"),
        ({"PIP_INDEX_URL": "https://a.test/simple/"}, {}, "https://a.test/simple"),
        (
            {},
            {".config/pip/pip.conf": "[global]\nindex-url = https://b.test/s\n"},
            "https://b.test/s",
        ),
        (
            {"PIP_CONFIG_FILE": "~/own.conf"},
            {
                ".config/pip/pip.conf": "[global]\nindex-url = https://b.test/s\n",
                "own.conf": "[global]\nindex-url = https://c%20d.test/s\n",
            },
            "https://c%20d.test/s",
        ),
        (
            {},
            {".pip/pip.conf": "[install]\nindex-url = https://e.test/s\n[global]\nindex-url = x\n"},
            "https://e.test/s",
        ),
    ],
)
def test_the_index_is_the_one_that_pip_would_use(
    environ: dict[str, str], files: dict[str, str], expected: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert index_url(environ) == expected


def test_a_pip_conf_that_cannot_be_parsed_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.conf").write_text("index-url = https://a.test\n")

    with pytest.raises(NotSetUp, match=r"pip\.conf: .*own\.conf"):
        index_url({"PIP_CONFIG_FILE": str(tmp_path / "own.conf")})


def test_an_index_that_is_overloaded_is_asked_again_and_one_that_refuses_is_not(
    index: PackageIndex, tmp_path: Path
) -> None:
    slept: list[float] = []
    index.failures += [503, 502]

    assert fetch_wheel(PIP, index.url, tmp_path, slept.append).name == PIP.name
    assert slept == [1.0, 3.0]

    index.failures += [403]
    with pytest.raises(OriginUnavailable, match="403"):
        fetch_wheel(PIP, index.url, tmp_path, slept.append)
    assert slept == [1.0, 3.0]


def test_an_index_that_does_not_answer_is_tried_three_times(tmp_path: Path) -> None:
    slept: list[float] = []

    with pytest.raises(OriginUnavailable, match=r"Connection refused.*check the network"):
        fetch_wheel(PIP, NOTHING_LISTENS, tmp_path, slept.append)

    assert slept == [1.0, 3.0]


def test_an_index_with_a_certificate_that_nobody_vouches_for_is_named_with_its_mend(
    secure_origin: Origin, tmp_path: Path
) -> None:
    with pytest.raises(OriginUnavailable, match=r"self-signed certificate.*ca-certificates"):
        fetch_wheel(PIP, secure_origin.url, tmp_path)


def test_an_index_without_our_pip_or_with_another_one_is_refused(tmp_path: Path) -> None:
    with package_index(lambda i: i.add("pip", PIP.name, b"another")) as index:
        with pytest.raises(OriginUnavailable, match="sends another"):
            fetch_wheel(PIP, index.url, tmp_path)
        index.add("pip", "pip-1.0-py3-none-any.whl", b"")
        with pytest.raises(OriginUnavailable, match=f"has no {PIP.name}"):
            fetch_wheel(PIP, index.url, tmp_path)

    assert not list(tmp_path.glob("*.whl"))


def test_the_indexs_password_goes_to_the_index_alone_and_into_no_error(
    pip_wheel: Path, tmp_path: Path
) -> None:
    with (
        package_index(with_sample(pip_wheel), host="127.0.0.2") as files,
        package_index(with_sample(pip_wheel)) as index,
    ):
        path = f"/files/{PIP.name}"
        del index.files[path]
        index.redirects[path] = files.url.replace("/simple", path)
        url = index.url.replace("://", "://user:pass%20word@")

        fetch_wheel(PIP, url, tmp_path)
        index.files.clear()
        with pytest.raises(OriginUnavailable) as caught:
            fetch_wheel(PIP, url, tmp_path)

    basic = "Basic dXNlcjpwYXNzIHdvcmQ="  # user:pass word
    assert {authorization for _, authorization in index.asked} == {basic}
    assert {authorization for _, authorization in files.asked} == {None}
    assert "pass" not in str(caught.value)
