"""The shim below libc: records what a program does to a folder, kills it at one step, or fails its calls.

It is a library that LD_PRELOAD puts into any program that is dynamically linked to libc, Python among them.
First record a whole run, then kill it at every step: ``for call in shim.calls(log): ... at=call.index``.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).parent / "shim" / "fault.c"


@dataclass(frozen=True, slots=True)
class Call:
    """One watched call: ``index`` from 1, ``op`` as fault.c names it, paths below the root.

    ``other`` is the new name of a rename or link.
    """

    index: int
    op: str
    path: str
    other: str | None = None


@dataclass(frozen=True, slots=True)
class Shim:
    """The compiled library."""

    library: Path

    def env(
        self,
        *,
        root: Path,
        log: Path | None = None,
        at: int | None = None,
        match: str | None = None,
        since: int = 1,
        do: str | None = None,
    ) -> dict[str, str]:
        """What to add to the environment of the program whose calls below ``root`` (a folder) are watched.

        ``log`` receives each call. ``do`` is ``kill-before``, ``kill-after`` or ``errno:NAME``, and happens to the
        call with the index ``at``, or to each that ``match`` (``op`` or ``op:part of its path``) means, from the
        ``since``-th on. Children inherit it, and count for themselves.
        """
        values: dict[str, object | None] = {
            "LD_PRELOAD": self.library,
            "FAULT_ROOT": root,
            "FAULT_LOG": log,
            "FAULT_AT": at,
            "FAULT_MATCH": match,
            "FAULT_FROM": since if match else None,
            "FAULT_DO": do,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    @staticmethod
    def calls(log: Path) -> tuple[Call, ...]:
        """What a log says, in the order in which it was written."""
        lines = log.read_text().splitlines() if log.exists() else []
        return tuple(_call(line) for line in lines)


def reason_missing() -> str | None:
    """Why there can be no shim here, or None."""
    return None if shutil.which("gcc") else "gcc is not installed: no LD_PRELOAD shim"


def build(folder: Path) -> Shim:
    """Compiles the shim into ``folder``."""
    library = folder / "fault.so"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, _SOURCE],
        check=True,
    )
    return Shim(library)


def _call(line: str) -> Call:
    index, op, path, *other = line.split("\t")
    return Call(int(index), op, path, other[0] if other else None)
