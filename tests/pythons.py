"""Pythons that lack something, as the hosts that we meet do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def base_python() -> Path:
    """The real interpreter below this environment, whether that has a link to it or a copy of it."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return (Path(sys.base_prefix) / "bin" / name).resolve()


def python_without(prefix: Path, *modules: str) -> Path:
    """A Python below ``prefix`` whose standard library lacks ``modules``, with no site-packages: a bare Debian's.

    CPython finds its library from where its executable lies (docs.python.org, sys.path initialization).
    """
    base = base_python()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = prefix / "bin" / version
    library = prefix / "lib" / version
    python.parent.mkdir(parents=True)
    library.mkdir(parents=True)
    shutil.copy(base, python)
    for entry in (base.parent.parent / "lib" / version).iterdir():
        if entry.stem not in {*modules, "site-packages", "dist-packages", "__pycache__"}:
            (library / entry.name).symlink_to(entry)
    return python


def run(
    command: Sequence[str | Path],
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """``command`` run to its end in ``folder``, with what it said."""
    return subprocess.run(
        command,
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
