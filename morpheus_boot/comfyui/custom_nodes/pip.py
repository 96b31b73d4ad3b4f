"""pip, run by ComfyUI's Python: says what is missing beside what that holds, and installs it elsewhere.

pip rather than uv, also where the image has uv: its dry run counts what the interpreter holds already (a torch of the
image that no index has, too) and reports in JSON (pip.pypa.io, "Installation Report"); uv's is prose for people.
"""

import json
import logging
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name

from morpheus_boot.comfyui.custom_nodes.interpreter import Interpreter
from morpheus_boot.errors import OriginUnavailable
from morpheus_boot.start.package_index import PIP, fetch_wheel, index_url
from morpheus_boot.start.pip_words import errors_in, is_new_enough, machine_error_in
from morpheus_boot.work.program import Ended, run_program

_LOG: Final = logging.getLogger("morpheus.nodes")
_SUBJECT: Final = "custom nodes' packages"
# The first whose report has its final format.
_OLDEST: Final = (23, 0)
_RESOLVE_TIMEOUT_S: Final = 900.0
_INSTALL_TIMEOUT_S: Final = 1800.0
# These would send the packages elsewhere, or stop pip.
_UNWANTED: Final = frozenset(
    {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_QUIET"}
)
_SETTINGS: Final = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_USER": "0",
    "PYTHONDONTWRITEBYTECODE": "1",  # ComfyUI's Python is never written, not even its caches
}
# Without a second try pip does not say that it could not connect.
_RETRIES: Final = "--retries=3"
_CONFLICT: Final = "The conflict is caused by:"
_CONSTRAINT: Final = "The user requested (constraint) "
_REQUESTED: Final = "The user requested "
# How an account begins to name a requirement that was asked for.
ASKED: Final = "asked for: "


class Unsolvable(Exception):
    """No versions fit together, or one can't be had; the text says why, with both sides."""


class Absent(Unsolvable):
    """The index shows no version of something at all, which pip says of one that answers 404, 403 and 503 alike."""


class Unbuildable(Unsolvable):
    """There is no wheel of the package ``name``, and it can't be built here."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"{name} has no wheel, and building it fails: {cause}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Package:
    """One distribution to install: ``pin`` is its requirement; ``built`` says that there is a wheel of it."""

    name: str
    pin: str
    built: bool


class Pip:
    """The pip of one ComfyUI: its own, or where that is too old one that is fetched into ``scratch``."""

    def __init__(
        self,
        python: Interpreter,
        *,
        environ: Mapping[str, str],
        scratch: Path,
        stopping: threading.Event,
    ) -> None:
        """Raises OriginUnavailable where a pip has to be fetched and can't be."""
        self._environ = {k: v for k, v in environ.items() if k not in _UNWANTED} | _SETTINGS
        self._scratch = scratch
        self._stopping = stopping
        if is_new_enough(python.held.get("pip", "0"), _OLDEST):
            self._argv: tuple[str, ...] = (str(python.python), "-m", "pip")
        else:
            _LOG.info("ComfyUI's Python has no pip, or an old one: fetching one from the index")
            wheel = fetch_wheel(PIP, index_url(environ), scratch)
            self._argv = (str(python.python), str(wheel / "pip"))

    def resolve(
        self, missing: Iterable[str], sources: Iterable[str], constraints: str
    ) -> tuple[Package, ...]:
        """What must be installed so that all that is ``missing`` is there; wheels are preferred.

        Raises:
            Unsolvable: no versions fit together within ``constraints``, or one is not to be had.
            Absent: nothing of something is to be had.
            OriginUnavailable: the index can't be reached.
            WaitedTooLong, Stopped: as run_program() does.
        """
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            folder = Path(name)
            report = folder / "report.json"
            (folder / "constraints.txt").write_text(constraints, "utf-8")
            (folder / "requirements.txt").write_text("\n".join((*sources, *missing, "")), "utf-8")
            ended = self._run(
                folder,
                _RESOLVE_TIMEOUT_S,
                *("install", "--dry-run", "--prefer-binary", _RETRIES, f"--report={report}"),
                *("--constraint=constraints.txt", "--requirement=requirements.txt"),
            )
            if ended.code != 0:
                raise _failure(ended)
            return tuple(map(_package, json.loads(report.read_text("utf-8"))["install"]))

    def install(self, packages: Sequence[Package], sources: Iterable[str], target: Path) -> None:
        """Installs exactly ``packages`` into the folder ``target``: the wheels at once, then what must be built.

        Raises:
            Unbuildable: one can't be built.
            StorageFailed: the local disk is full.
            OriginUnavailable: the index does not send what it has announced.
            WaitedTooLong, Stopped: as run_program() does.
        """
        options = tuple(sources)
        if wheels := [package for package in packages if package.built]:
            ended = self._install(wheels, options, target)
            if ended.code != 0:
                raise machine_error_in(ended.err, _SUBJECT) or OriginUnavailable(
                    "package index", f"pip can't install from it ({_why(ended)})", "start again"
                )
        for package in (package for package in packages if not package.built):
            ended = self._install([package], options, target)
            if ended.code != 0:
                raise machine_error_in(ended.err, _SUBJECT) or Unbuildable(
                    package.name, _why(ended)
                )

    def _install(self, batch: Sequence[Package], sources: Sequence[str], target: Path) -> Ended:
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            folder = Path(name)
            lines = (*sources, *(p.pin for p in batch), "")
            (folder / "requirements.txt").write_text("\n".join(lines), "utf-8")
            return self._run(
                folder,
                _INSTALL_TIMEOUT_S,
                *(
                    "install",
                    "--no-deps",
                    "--no-compile",
                    "--prefer-binary",
                    _RETRIES,
                    f"--target={target}",
                ),
                "--requirement=requirements.txt",
            )

    def _run(self, folder: Path, timeout_s: float, *arguments: str) -> Ended:
        return run_program(
            (*self._argv, *arguments),
            environ=self._environ,
            folder=folder,
            timeout_s=timeout_s,
            stopping=self._stopping,
        )


def _failure(ended: Ended) -> Exception:
    why = _why(ended)
    if _CONFLICT in ended.out:
        return Unsolvable(why)
    error = machine_error_in(ended.err, _SUBJECT)
    if error is not None:
        return error
    if "(from versions: none)" in ended.err:
        return Absent(f"{why}, or the package index can't be read")
    return Unsolvable(why)


def _why(ended: Ended) -> str:
    """What pip says of a failure, on one line; of a conflict, the sides alone."""
    _, found, account = ended.out.partition(_CONFLICT)
    if found:
        sides = account.strip().partition("\n\n")[0].splitlines()
        return "; ".join(map(_side, dict.fromkeys(map(str.strip, sides))))
    errors = errors_in(ended.err)
    if errors == ["Exception:"]:
        return ended.words  # pip itself failed, and a traceback follows
    return errors[-1] if errors else ended.words


def _side(line: str) -> str:
    if line.startswith(_CONSTRAINT):
        return f"ComfyUI's Python holds {line.removeprefix(_CONSTRAINT)}"
    if line.startswith(_REQUESTED):
        return f"{ASKED}{line.removeprefix(_REQUESTED)}"
    return line


def _package(entry: Mapping[str, object]) -> Package:
    """One entry of the report's ``install``."""
    match entry:
        case {
            "metadata": {"name": str(name), "version": str(version)},
            "download_info": {"url": str(url), **info},
        }:
            pin = f"{name}=={version}"
            if entry.get("is_direct"):
                pin = f"{name} @ {_pinned(url, info)}"
            return Package(canonicalize_name(name), pin, built=urlsplit(url).path.endswith(".whl"))
    raise Unsolvable(f"pip's report can't be read ({entry!r:.200})")


def _pinned(url: str, info: Mapping[object, object]) -> str:
    match info:
        case {"vcs_info": {"vcs": str(vcs), "commit_id": str(commit)}}:
            return f"{vcs}+{url}@{commit}"
    return url
