"""What ComfyUI's Python is and holds, asked of itself."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

from morpheus_boot.errors import NotSetUp
from morpheus_boot.work.program import run_program

_TIMEOUT_S: Final = 120.0

# The markers are PEP 508's. The C library belongs to the identity: wheels are built against one.
_PROBE: Final = """
import importlib.metadata, json, os, platform, sys, sysconfig
v = sys.implementation.version
held = {}
for dist in importlib.metadata.distributions():
    name, version = dist.metadata["Name"], dist.metadata["Version"]
    if name and version:
        held.setdefault(name, version)
print(json.dumps({
    "identity": [
        sys.implementation.cache_tag, platform.python_version(), sysconfig.get_platform(),
        os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else "",
    ],
    "held": held,
    "markers": {
        "implementation_name": sys.implementation.name,
        "implementation_version": "%d.%d.%d" % v[:3],
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    },
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """ComfyUI's Python.

    ``identity`` is what a built package depends on; ``held`` the version of each distribution, by its normalized
    name; ``markers`` the values of PEP 508's environment markers.
    """

    python: Path
    identity: tuple[str, ...]
    held: Mapping[str, str]
    markers: Mapping[str, str]


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
        held: dict[str, str] = {
            canonicalize_name(name): version for name, version in said["held"].items()
        }
        return Interpreter(python, tuple(said["identity"]), held, said["markers"])
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise NotSetUp(
            "COMFYUI_PYTHON",
            f"{python} does not say what it holds ({ended.words})",
            "set it to ComfyUI's own interpreter, Python 3.9 or later",
        ) from error
