"""What ComfyUI's Python is and holds, asked of itself."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

from morpheus_boot.errors import NotSetUp
from morpheus_boot.start.installed import compile_command
from morpheus_boot.work.program import run_program

_TIMEOUT_S: Final = 120.0
_COMPILE_TIMEOUT_S: Final = 900.0

# The C library belongs to the identity: wheels are built against one.
_PROBE: Final = """
import importlib.metadata, json, os, platform, sys, sysconfig
held = {}
for dist in importlib.metadata.distributions():
    metadata = dist.metadata
    if metadata["Name"] and metadata["Version"]:
        of_extras = [text for text in metadata.get_all("Requires-Dist") or [] if "extra" in text]
        held.setdefault(metadata["Name"], [metadata["Version"], of_extras])
print(json.dumps({
    "identity": [
        sys.implementation.cache_tag, platform.python_version(), sysconfig.get_platform(),
        os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else "",
    ],
    "held": held,
}))
"""


@dataclass(frozen=True, slots=True)
class Held:
    """One distribution that a Python holds: its ``version``, and what its extras require."""

    version: str
    requires_of_extras: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interpreter:
    """ComfyUI's Python: ``identity`` is what a built package depends on; ``held`` goes by normalized names."""

    python: Path
    identity: tuple[str, ...]
    held: Mapping[str, Held]

    @property
    def version(self) -> str:
        """As 3.12.3."""
        return self.identity[1]


def look_at(
    python: Path, *, environ: Mapping[str, str], folder: Path, stopping: threading.Event
) -> Interpreter:
    """Asks ``python``, which takes a few hundred milliseconds and writes nothing.

    Raises:
        NotSetUp: it can't be run, or is no Python of 3.9 or later.
        WaitedTooLong: it took too long.
        Stopped: the boot was told to stop.
    """
    ended = run_program(
        (str(python), "-c", _PROBE),
        environ=environ,
        folder=folder,
        timeout_s=_TIMEOUT_S,
        stopping=stopping,
    )
    try:
        said = json.loads(ended.out.splitlines()[-1])
        held: dict[str, Held] = {
            canonicalize_name(name): Held(version, tuple(requires))
            for name, (version, requires) in said["held"].items()
        }
        return Interpreter(python, tuple(said["identity"]), held)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise NotSetUp(
            "COMFYUI_PYTHON",
            f"{python} does not say what it holds ({ended.words})",
            "set it to ComfyUI's own interpreter, Python 3.9 or later",
        ) from error


def compile_tree(
    python: Path,
    folder: Path,
    *,
    edited: bool,
    environ: Mapping[str, str],
    stopping: threading.Event,
) -> None:
    """Has ``python`` compile all below ``folder``; ``edited`` as compile_command() has it.

    A file that is no Python of this version is passed over: some packages ship such. Raises as run_program() does.
    """
    run_program(
        compile_command(python, folder, edited=edited),
        environ=environ,
        folder=folder,
        timeout_s=_COMPILE_TIMEOUT_S,
        stopping=stopping,
    )
