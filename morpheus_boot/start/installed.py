"""The packages that a lock names, as a virtual environment holds them: where they lie, and where the volume keeps them.

Standard library only: environment.py runs before our own packages are there.
"""

import fcntl
import hashlib
import logging
import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Final, TextIO

from morpheus_boot.volume.archive import ArchiveLock, pack
from morpheus_boot.volume.layout import Layout

RUNTIME_LOCK: Final = Path(__file__).parents[1] / "requirements.txt"
_LOG: Final = logging.getLogger("morpheus.environment")
_FORMAT: Final = "1"


def site_of(venv: Path) -> Path:
    """The folder that holds the packages of ``venv``, which was made by this Python."""
    paths = sysconfig.get_paths("venv", {"base": str(venv), "platbase": str(venv)})
    return Path(paths["purelib"])


def compile_command(python: Path, tree: Path, *, edited: bool) -> tuple[str, ...]:
    """The command by which ``python`` compiles everything below ``tree``, which may be renamed afterwards.

    By content: archives set other mtimes, and images forbid Python to write byte code at import. ``edited``: somebody
    may edit ``tree`` in place, so each import looks at the source; else none does, and all processors are used.
    """
    how = ("checked-hash",) if edited else ("unchecked-hash", "-j", "0")
    options = ("-q", "-q", "-s", str(tree), "--invalidation-mode", *how)
    # -I: nothing of the working directory's must be taken for compileall.
    return (str(python), "-I", "-m", "compileall", *options, str(tree))


def site_key(lock: Path) -> str:
    """What those packages depend on, in 32 hex digits: this Python, the platform and its C library, the lock."""
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else ""
    identity = (
        _FORMAT,
        str(sys.implementation.cache_tag),
        platform.python_version(),
        sysconfig.get_platform(),
        libc or "",
    )
    content = "\n".join(identity).encode() + lock.read_bytes()
    return hashlib.sha256(content).hexdigest()[:32]


def hold_environment(venv: Path) -> TextIO | None:
    """Keeps ``venv`` from being removed as long as the returned file is open; None where it is none of ours."""
    try:
        file = (venv / "lock.txt").open()
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def environment_archive(layout: Layout, lock: Path = RUNTIME_LOCK) -> Path:
    """Where the volume keeps the packages that this program runs on."""
    return layout.archives / "environment" / f"{site_key(lock)}.tar.gz"


def keep_environment(
    layout: Layout, venv: Path, archive_lock: ArchiveLock, lock: Path = RUNTIME_LOCK
) -> None:
    """Leaves the packages of ``venv`` on the volume, unless it has them, so that the next container installs none.

    Does nothing where ``venv`` was not made from ``lock``; a volume that takes none does without. Raises
    WaitedTooLong as ``archive_lock`` does.
    """
    archive = environment_archive(layout, lock)
    try:
        if archive.exists() or (venv / "lock.txt").read_bytes() != lock.read_bytes():
            return
        # A cold fleet is ready at one time, and each worker would pack the same.
        with archive_lock(f"environment/{site_key(lock)}"):
            if archive.exists():
                return
            pack(site_of(venv), archive)
    except FileNotFoundError:
        return  # another Python than pod_start.sh's: a developer's, or a test's
    except OSError as error:
        _LOG.info("our environment is not kept on the volume (%s)", error.strerror)
    else:
        _LOG.info("our environment is kept on the volume: the next container installs nothing")
