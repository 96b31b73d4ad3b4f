"""uv, which finds and installs what custom nodes need beside what ComfyUI's Python holds.

That is shown to uv as bare metadata in the very folder that it installs into: so a torch that no index has counts as
installed, nothing that is held comes in another version, and ComfyUI's Python is never written. What a held
distribution requires in turn is not asked again, since images bend that; what its extras require is.
"""

import logging
import platform
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from packaging.version import InvalidVersion, Version

from morpheus_boot.comfyui.custom_nodes.interpreter import Interpreter
from morpheus_boot.errors import NotSetUp, OriginUnavailable, StorageFailed
from morpheus_boot.start.package_index import (
    CHECK_NETWORK,
    Wheel,
    fetch_wheel,
    index_url,
    pip_settings,
)
from morpheus_boot.volume.archive import provide
from morpheus_boot.volume.publish import write_whole
from morpheus_boot.work.program import run_program

_LOG: Final = logging.getLogger("morpheus.nodes")
_SUBJECT: Final = "custom nodes' packages"
_TIMEOUT_S: Final = 1800.0
_QUOTED_CHARS: Final = 500
_SYSTEM_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_VERSION: Final = "0.13.9"
# By platform.machine().
_WHEELS: Final = {
    "x86_64": Wheel(
        "uv",
        "uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    "aarch64": Wheel(
        "uv",
        "uv-0.13.9-py3-none-manylinux_2_28_aarch64.whl",
        "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    ),
}
# pip's options that uv has as variables alone (docs.astral.sh/uv, "Environment variables").
_PIP_AS_UV: Final = {
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
_OURS: Final = "morpheus-boot"  # the INSTALLER of what is only shown
# What another day, or other settings, may mend.
_PASSING: Final = re.compile(
    r"Git operation failed|was not found in the|there are no versions of|could not be queried"
)


class Unsolvable(Exception):
    """No versions fit together, one can't be had, or a requirements file can't be read: why, in uv's own words.

    ``lasting`` unless another day may bring what is missing now.
    """

    def __init__(self, words: str, *, lasting: bool) -> None:
        super().__init__(words)
        self.lasting = lasting


def find_uv(environ: Mapping[str, str], local: Path, shelf: Path) -> Path:
    """The uv on PATH, else the pinned one: below the folder ``local``, of the volume's ``shelf``, of the package index.

    Raises:
        NotSetUp: there is none for this machine, or a pip.conf can't be parsed.
        OriginUnavailable: it has to be fetched, and can't be.
        OSError: ``local`` can't be written.
    """
    if found := shutil.which("uv", path=environ.get("PATH")):
        return Path(found)
    wheel = _WHEELS.get(platform.machine())
    if wheel is None:
        raise NotSetUp("uv", f"there is none for {platform.machine()}", "install it in the image")
    folder = local / f"uv-{_VERSION}"
    archive = shelf / f"uv-{_VERSION}-{platform.machine()}.tar.gz"
    provide(folder, archive, lambda staging: _fetch(wheel, environ, staging))
    return folder / "uv"


def _fetch(wheel: Wheel, environ: Mapping[str, str], folder: Path) -> bool:
    _LOG.info("the image has no uv: fetching one from the package index")
    try:
        file = fetch_wheel(wheel, index_url(environ), folder)
    except OriginUnavailable as error:
        cause = f"the image has none, and it can't be fetched ({error.subject}: {error.cause})"
        raise OriginUnavailable("uv", cause, f"install it in the image, or {error.mend}") from error
    with zipfile.ZipFile(file) as archive:
        (folder / "uv").write_bytes(archive.read(f"uv-{_VERSION}.data/scripts/uv"))
    (folder / "uv").chmod(0o755)
    file.unlink()
    return True


class Uv:
    """uv for one ComfyUI."""

    def __init__(
        self,
        program: Path,
        python: Interpreter,
        *,
        environ: Mapping[str, str],
        scratch: Path,
        stopping: threading.Event,
    ) -> None:
        """``scratch``: a folder on local disk, for what is downloaded. Raises NotSetUp as pip_settings() does."""
        settings = pip_settings(environ, python.python.parent.parent / "pip.conf")
        self._argv = (str(program), "pip", "install", "--quiet", "--python", str(python.python))
        self._python = python
        self._scratch = scratch
        self._stopping = stopping
        self._held = scratch / "held.txt"
        self._settings = scratch / "settings.txt"
        self._lines = (f"-c {self._held}", *_lines(settings, environ))
        # pip trusts what the system trusts; uv, unless told, what it brings itself.
        trust = {"UV_NATIVE_TLS": "1"} if _SYSTEM_CERTIFICATES.exists() else {}
        self._environ = {
            **trust,
            **{new: settings[option] for option, new in _PIP_AS_UV.items() if option in settings},
            **({"UV_PRERELEASE": "allow"} if _is_on(settings, "pre") else {}),
            **environ,
            "UV_CACHE_DIR": str(scratch / "cache"),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_COMPILE_BYTECODE": "0",  # it is compiled so that it survives the archive
            "UV_NO_WRAP": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # ComfyUI's Python is never written, not even its caches
            "GIT_TERMINAL_PROMPT": "0",
        }

    def install(self, requirements: Sequence[Path], site: Path) -> None:
        """Puts what the files ``requirements`` ask for together into the folder ``site``, where it is not held.

        What an earlier call has put there counts, too. Wheels are preferred: only where they alone don't do, packages
        are built. Nothing is installed unless all can be.

        Raises:
            Unsolvable: it can't be had together.
            OriginUnavailable: the package index can't be reached.
            StorageFailed: the local disk is full.
            WaitedTooLong, Stopped: as run_program() does.
            OSError: ``site`` can't be written.
        """
        options = ("--target", str(site), "--index-strategy", "unsafe-best-match")
        files = [part for file in (self._settings, *requirements) for part in ("-r", str(file))]
        write_whole(self._settings, "\n".join(self._lines).encode(), mode=0o600, durable=False)
        with self._shown_in(site):
            for wheels_only in (("--no-build",), ()):
                ended = run_program(
                    (*self._argv, *options, *wheels_only, *files),
                    environ=self._environ,
                    folder=self._scratch,
                    timeout_s=_TIMEOUT_S,
                    stopping=self._stopping,
                )
                if ended.code == 0:
                    return
                words = _words(ended.err)
                _raise_for_machine(words)
        raise Unsolvable(words, lasting=_PASSING.search(words) is None)

    @contextmanager
    def _shown_in(self, site: Path) -> Iterator[None]:
        """Shows in ``site`` what ComfyUI's Python holds, and lets nothing of it come in another version."""
        site.mkdir(parents=True, exist_ok=True)
        constraints = []
        for name, held in self._python.held.items():
            try:
                version = Version(held.version)
            except InvalidVersion:
                continue  # old distributions have such; uv knows nothing of them
            constraints.append(f"{name}=={version}\n")
            info = site / f"{name.replace('-', '_')}-{version}.dist-info"
            if info.exists():
                continue  # asked for by its URL, and so installed once more by an earlier call
            info.mkdir()
            lines = (
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
                *(f"Requires-Dist: {text}" for text in held.requires_of_extras),
            )
            (info / "METADATA").write_text("\n".join((*lines, "")), "utf-8")
            (info / "INSTALLER").write_text(_OURS, "utf-8")
            (info / "RECORD").touch()
        self._held.write_text("".join(constraints), "utf-8")
        try:
            yield
        finally:
            for installer in site.glob("*.dist-info/INSTALLER"):
                if installer.read_text("utf-8") == _OURS:
                    shutil.rmtree(installer.parent)


def _is_on(settings: Mapping[str, str], option: str) -> bool:
    return settings.get(option, "0").lower() not in {"0", "n", "no", "f", "false", "off"}


def _lines(settings: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[str]:
    """What says pip's ``settings`` in a requirements file: uv reads it as pip does, and no command line shows it."""
    if environ.keys().isdisjoint({"UV_INDEX_URL", "UV_DEFAULT_INDEX"}):
        yield from (f"--index-url {url}" for url in settings.get("index-url", "").split())
    yield from (f"--extra-index-url {url}" for url in settings.get("extra-index-url", "").split())
    for place in settings.get("find-links", "").split():
        if (
            "://" in place or Path(place).exists()
        ):  # pip, too, goes on without a folder that is not there
            yield f"--find-links {place}"
    yield from (f"-c {file}" for file in settings.get("constraint", "").split())
    if _is_on(settings, "no-index"):
        yield "--no-index"


def _raise_for_machine(words: str) -> None:
    """Raises where the machine has failed rather than a package: its disk, its network."""
    if "No space left on device" in words:
        raise StorageFailed(
            _SUBJECT,
            "no space is left on the local disk",
            "give the container more disk, or set MORPHEUS_LOCAL_DIR to another local folder",
        )
    if "Failed to fetch" in words:
        raise OriginUnavailable("package index", f"can't be reached ({words})", CHECK_NETWORK)


def _words(stderr: str) -> str:
    """What uv says, on one line; of a long account (a compiler's) its two ends."""
    text = " ".join(stderr.split()).removeprefix("error: ")
    most = 2 * _QUOTED_CHARS
    return text if len(text) <= most else f"{text[:_QUOTED_CHARS]} ... {text[-_QUOTED_CHARS:]}"
