"""Makes our virtual environment on local disk: from the volume's archive, else from a lock of exact, hashed versions.

Run by pod_start.sh with whatever Python the host has (``python -m morpheus_boot.start.environment FOLDER LOCK`` and
then the program's own arguments), so standard library only. pod_start.sh's ``find_environment`` is the other half: it
knows a whole one by its lock.txt.
"""

import fcntl
import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from morpheus_boot.config.argv import value_of
from morpheus_boot.config.redact import Redactor
from morpheus_boot.config.settings import Overrides, Settings, read_environ, read_what_is_right
from morpheus_boot.errors import (
    Exit,
    MorpheusError,
    NotSetUp,
    OriginUnavailable,
    WaitedTooLong,
    local_error,
)
from morpheus_boot.report.log import set_up_log
from morpheus_boot.start.byte_code import compile_command
from morpheus_boot.start.installed import RUNTIME_LOCK, environment_archive, site_of
from morpheus_boot.start.package_index import PIP, fetch_wheel, index_url
from morpheus_boot.start.pip_words import CHECK_NETWORK, errors_in, is_new_enough, machine_error_in
from morpheus_boot.volume.archive import unpack
from morpheus_boot.volume.mount import find_volume

_LOG: Final = logging.getLogger("morpheus.environment")

# From this version on pip trusts what the system trusts; older ones also take twice the time over the index.
_OLDEST_PIP: Final = (24, 2)
_INSTALL_TIMEOUT_S: Final = 900.0
_LOCK_TIMEOUT_S: Final = 1000.0
_LOCK_INTERVAL_S: Final = 0.1


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
    """Holds an flock, on local disk: the kernel frees it with whoever holds it."""
    deadline = time.monotonic() + timeout_s
    announced = False
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise WaitedTooLong(
                        str(path),
                        f"another start has held it for {timeout_s:.0f} s",
                        "end that one, and try again",
                    ) from None
                if not announced:
                    _LOG.info("waiting for another start that makes the environment")
                    announced = True
                time.sleep(_LOCK_INTERVAL_S)
        yield


def _build(folder: Path, wanted: bytes, environ: Mapping[str, str], archive: Path | None) -> Path:
    started = time.monotonic()
    venv = Path(tempfile.mkdtemp(prefix="venv-", dir=folder))
    venv.chmod(0o755)  # mkdtemp's 0700 would keep other users' ComfyUI and tools out
    _LOG.info("making the environment in %s, once a container", venv)
    try:
        part = venv / "lock.part"
        part.write_bytes(wanted)
        _make_venv(venv)
        if archive is None or not _unpacked(archive, venv):
            _install(venv, part, environ)
            # Its exit code says that some package ships a file which is no Python of this version.
            _run(compile_command(venv / "bin" / "python", venv / "lib", edited=False))
        os.replace(part, venv / "lock.txt")
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    _LOG.info("the environment is there after %.1f s", time.monotonic() - started)
    return venv


def _make_venv(venv: Path) -> None:
    # With pip it would need ensurepip, which Debian keeps in another package, and take 5 s more.
    made = _run([sys.executable, "-I", "-m", "venv", "--without-pip", str(venv)])
    if made.returncode != 0:
        raise NotSetUp(
            "Python",
            f"{sys.executable} can't make a virtual environment ({_words(made)})",
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
    uv = shutil.which("uv")
    if uv is not None:
        options = ("--quiet", "--require-hashes", "--no-build", "--python", str(venv))
        synced = _run([uv, "pip", "sync", *options, str(lock)])
        if synced.returncode == 0:
            return
        # An old uv, or one that knows another index or other certificates than pip.
        _LOG.warning("uv can't install (%s): trying pip", _words(synced))
    options = ("--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-compile")
    exact = ("--require-hashes", "--only-binary=:all:", "--requirement", str(lock))
    installed = _run([*_pip(venv, environ), "install", *options, *exact])
    if installed.returncode != 0:
        raise _install_error(installed.stderr)
    (venv / PIP.name).unlink(missing_ok=True)


def _pip(venv: Path, environ: Mapping[str, str]) -> list[str]:
    """The pip that installs into ``venv``: the host's, else one fetched for this once."""
    python = str(venv / "bin" / "python")
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if is_new_enough(version, _OLDEST_PIP):
        # -P: nothing of the working directory's must be taken for pip or what it imports.
        return [sys.executable, "-P", "-m", "pip", "--python", python]
    _LOG.info("this Python has no pip, or an old one: fetching one from the package index")
    return [python, str(fetch_wheel(PIP, index_url(environ), venv) / "pip")]


def _install_error(stderr: str) -> MorpheusError:
    error = machine_error_in(stderr, "our environment")
    if error is not None:
        return error
    said = (*errors_in(stderr), *map(str.strip, stderr.splitlines()), "pip said nothing")
    return OriginUnavailable("package index", next(filter(None, said)), CHECK_NETWORK)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WaitedTooLong(
            Path(command[0]).name,
            f"did not end within {_INSTALL_TIMEOUT_S:.0f} s",
            "check the network, and start again",
        ) from error


def _words(ended: subprocess.CompletedProcess[str]) -> str:
    said = " ".join((ended.stderr or ended.stdout).split())
    return said[:300] or f"exit code {ended.returncode}"


def main(argv: Sequence[str]) -> int:
    """Makes the environment that pod_start.sh asks for; returns the exit code."""
    folder, lock = map(Path, argv[:2])
    settings = _read_settings(argv[2:])
    set_up_log(
        settings.log_format if settings else "text",
        0,
        Redactor(settings.secrets if settings else ()),
    )
    try:
        make_environment(
            folder,
            lock,
            settings.environ if settings else read_environ(),
            archive=_archive(settings, lock) if settings else None,
        )
    except MorpheusError as error:
        _LOG.error("%s (exit %d)", error, error.exit_code)
        return error.exit_code
    return Exit.DONE


def _read_settings(arguments: Sequence[str]) -> Settings | None:
    """As far as they are right: of what is wrong the boot itself tells, where it can be held for reading."""
    volume = value_of("--volume", arguments)
    return read_what_is_right(Overrides(volume=Path(volume) if volume else None))


def _archive(settings: Settings, lock: Path) -> Path | None:
    """The volume's archive of ``lock``'s packages; None without a volume, and for any lock but the program's own."""
    if not lock.samefile(RUNTIME_LOCK):
        return None
    try:
        volume = find_volume(settings.volume, None, on_runpod=settings.runpod.present)
    except NotSetUp:
        return None
    return environment_archive(volume.layout, lock)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
