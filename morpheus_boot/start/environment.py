"""Makes our virtual environment on local disk: from the volume's archive, else from a lock of exact, hashed versions.

pod_start.sh runs it with whatever Python the host has, so standard library only. Its ``environment_python`` is the
other half: it knows a whole one by its lock.txt.
"""

import fcntl
import importlib.metadata
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from morpheus_boot.config.argv import value_of
from morpheus_boot.config.redact import Redactor
from morpheus_boot.config.settings import Overrides, Settings, read_settings, read_what_is_right
from morpheus_boot.errors import (
    MorpheusError,
    NotSetUp,
    OriginUnavailable,
    StorageFailed,
    WaitedTooLong,
    local_error,
)
from morpheus_boot.report.log import set_up_log
from morpheus_boot.start.installed import (
    RUNTIME_LOCK,
    compile_command,
    environment_archive,
    site_of,
)
from morpheus_boot.start.package_index import CHECK_NETWORK, PIP, fetch_wheel, index_url
from morpheus_boot.volume.archive import unpack
from morpheus_boot.volume.flock import open_locked
from morpheus_boot.volume.mount import find_volume
from morpheus_boot.work.program import Ended, run_program

_LOG: Final = logging.getLogger("morpheus.environment")

# These would send our packages into another Python, perhaps ComfyUI's, or take for ours what lies elsewhere.
_MISLEADING: Final = frozenset({"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PYTHONPATH"})
# From this version on pip trusts what the system trusts; older ones also take twice the time over the index.
_OLDEST_PIP: Final = (24, 2)
_INSTALL_TIMEOUT_S: Final = 900.0
_LOCK_TIMEOUT_S: Final = 1000.0
_LOCK_INTERVAL_S: Final = 0.1
_BROKEN: Final = "connection broken by "


def main(argv: Sequence[str]) -> NoReturn:
    """Makes the environment where it isn't there yet, and becomes the program with ``argv``; exits where it can't."""
    set_up_log("text", 0, Redactor())
    try:
        settings = _read_settings(argv)
        set_up_log(settings.log_format, 0, Redactor(settings.secrets))
        venv = make_environment(
            settings.local_dir, RUNTIME_LOCK, settings.environ, archive=_archive(settings)
        )
    except MorpheusError as error:
        _LOG.error("%s (exit %d)", error, error.exit_code)
        sys.exit(error.exit_code)
    python = str(venv / "bin" / "python")
    os.execv(python, [python, "-P", "-s", "-m", "morpheus_boot", *argv])  # noqa: S606 - nothing for a shell


def _read_settings(argv: Sequence[str]) -> Settings:
    """As far as they are right: of what is wrong the boot itself tells, where it can be held for reading."""
    volume = value_of("--volume", argv)
    overrides = Overrides(volume=Path(volume) if volume else None)
    return read_what_is_right(overrides) or read_settings(overrides)


def _archive(settings: Settings) -> Path | None:
    """Where the volume, if there is one, keeps our packages."""
    try:
        volume = find_volume(settings.volume, None, on_runpod=settings.runpod.present)
    except NotSetUp:
        return None
    return environment_archive(volume.layout)


def make_environment(
    folder: Path,
    lock: Path,
    environ: Mapping[str, str],
    *,
    archive: Path | None = None,
    lock_timeout_s: float = _LOCK_TIMEOUT_S,
) -> Path:
    """The environment below ``folder`` that has what ``lock`` names, made now unless another start has made it.

    Each build has a folder of its own, ``venv-*``, and writes lock.txt into it last: whoever finds that file finds
    all. What a killed build left is removed, and after a new build the environments of other locks that nobody runs.
    ``archive`` holds the packages already, where it is there; then no network is needed.

    Raises:
        NotSetUp: this Python can't make one, nothing may be executed in ``folder``, or pip.conf can't be parsed.
        OriginUnavailable: the package index can't be reached, or has not what the lock names.
        StorageFailed: ``folder`` can't be written, or its disk is full.
        WaitedTooLong: another start, or an installer, took too long.
    """
    wanted = lock.read_bytes()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_executable(folder)
        with _locked(folder / "venv.lock", lock_timeout_s):
            found = [venv for venv in folder.glob("venv-*") if _is_whole(venv)]
            for venv in found:
                if (venv / "lock.txt").read_bytes() == wanted:
                    return venv
            for venv in set(folder.glob("venv-*")).difference(found):
                shutil.rmtree(venv, ignore_errors=True)  # an installer may have outlived its build
            made = _build(folder, wanted, environ, archive)
            for venv in found:
                _remove_unless_held(venv)
            return made
    except OSError as error:
        raise local_error("our environment", folder, error) from error


def _require_executable(folder: Path) -> None:
    """Its Python would run, being a link to the system's, and then fail to load our packages' libraries."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise NotSetUp(
            "our environment",
            f"{folder} lies on a disk that is mounted noexec",
            "set MORPHEUS_LOCAL_DIR to a local folder where programs may be executed",
        )


def _remove_unless_held(venv: Path) -> None:
    lock = venv / "lock.txt"
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # a program runs on it: hold_environment()
        lock.unlink()  # from now on it is what a killed build left
        shutil.rmtree(venv, ignore_errors=True)


def _is_whole(venv: Path) -> bool:
    return (venv / "lock.txt").is_file() and os.access(venv / "bin" / "python", os.X_OK)


@contextmanager
def _locked(path: Path, timeout_s: float) -> Iterator[None]:
    deadline = time.monotonic() + timeout_s
    announced = False
    while (fd := open_locked(path)) is None:
        if time.monotonic() > deadline:
            cause = f"another start has held it for {timeout_s:.0f} s"
            raise WaitedTooLong(str(path), cause, "end that one, and try again")
        if not announced:
            _LOG.info("waiting for another start that makes the environment")
            announced = True
        time.sleep(_LOCK_INTERVAL_S)
    try:
        yield
    finally:
        os.close(fd)


def _build(folder: Path, wanted: bytes, environ: Mapping[str, str], archive: Path | None) -> Path:
    started = time.monotonic()
    venv = Path(tempfile.mkdtemp(prefix="venv-", dir=folder))
    venv.chmod(0o755)  # mkdtemp's 0700 would keep other users' ComfyUI and tools out
    _LOG.info("making the environment in %s, once a container", venv)
    installers = {name: value for name, value in environ.items() if name not in _MISLEADING}
    try:
        part = venv / "lock.part"
        part.write_bytes(wanted)
        _make_venv(venv, installers)
        if archive is None or not _unpacked(archive, venv):
            _install(venv, part, installers)
            # Its exit code says that some package ships a file which is no Python of this version.
            _run(compile_command(venv / "bin" / "python", venv / "lib", edited=False), installers)
        os.replace(part, venv / "lock.txt")
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    _LOG.info("the environment is there after %.1f s", time.monotonic() - started)
    return venv


def _make_venv(venv: Path, environ: Mapping[str, str]) -> None:
    # With pip it would need ensurepip, which Debian keeps in another package, and take 5 s more.
    made = _run([sys.executable, "-I", "-m", "venv", "--without-pip", str(venv)], environ)
    if made.code != 0:
        raise NotSetUp(
            "Python",
            f"{sys.executable} can't make a virtual environment ({made.words})",
            "install another Python 3.11 or newer (apt-get install python3), or uv",
        )


def _unpacked(archive: Path, venv: Path) -> bool:
    site = site_of(venv)
    site.rmdir()  # it is unpacked beside it and takes its name whole
    if unpack(archive, site):
        _LOG.info("its packages come from the volume")
        return True
    site.mkdir()
    return False


def _install(venv: Path, lock: Path, environ: Mapping[str, str]) -> None:
    uv = shutil.which("uv", path=environ.get("PATH"))
    if uv is not None:
        options = ("--quiet", "--require-hashes", "--no-build", "--python", str(venv))
        synced = _run([uv, "pip", "sync", *options, str(lock)], environ)
        if synced.code == 0:
            return
        # An old uv, or one that knows another index or other certificates than pip.
        _LOG.warning("uv can't install (%s): trying pip", synced.words)
    options = ("--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-compile")
    exact = ("--require-hashes", "--only-binary=:all:", "--requirement", str(lock))
    installed = _run([*_pip(venv, environ), "install", *options, *exact], environ)
    if installed.code != 0:
        raise _install_error(installed)
    (venv / PIP.name).unlink(missing_ok=True)


def _pip(venv: Path, environ: Mapping[str, str]) -> list[str]:
    """The pip that installs into ``venv``: the host's, else one fetched for this once."""
    python = str(venv / "bin" / "python")
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= _OLDEST_PIP:
        # -P: nothing of the working directory's must be taken for pip or what it imports.
        return [sys.executable, "-P", "-s", "-m", "pip", "--python", python]
    _LOG.info("this Python has no pip, or an old one: fetching one from the package index")
    return [python, str(fetch_wheel(PIP, index_url(environ), venv) / "pip")]


def _install_error(installed: Ended) -> MorpheusError:
    if "No space left on device" in installed.err:
        return StorageFailed(
            "our environment",
            "no space is left on the local disk",
            "give the container more disk, or set MORPHEUS_LOCAL_DIR to another local folder",
        )
    lines = [" ".join(line.split()) for line in installed.err.splitlines()]
    # pip names a broken connection in its warnings alone, and ends with a version that it "could not find".
    if broken := [line for line in lines if _BROKEN in line]:
        cause = f"can't be reached ({broken[-1].partition(_BROKEN)[2]})"
        return OriginUnavailable("package index", cause, CHECK_NETWORK)
    # Its last error sums up those before it.
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    said = next(filter(None, (*errors, *lines)), "pip said nothing")
    return OriginUnavailable("package index", said, CHECK_NETWORK)


def _run(command: Sequence[str], environ: Mapping[str, str]) -> Ended:
    return run_program(
        command,
        environ=environ,
        folder=Path.cwd(),
        timeout_s=_INSTALL_TIMEOUT_S,
        stopping=threading.Event(),
    )
