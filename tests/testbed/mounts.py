"""A small file system of its own, to be full of bytes or of files."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_PAGE = b"\0" * 4096


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs with the ``options`` of tmpfs(5), at ``folder``, which is made; skips where none may be mounted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill_up(folder: Path) -> Path:
    """Takes all the room that is left, in one file, which is returned."""
    ballast = folder / "ballast"
    with ballast.open("xb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(_PAGE)
    return ballast


@contextmanager
def bound(folder: Path, at: Path) -> Iterator[None]:
    """``folder`` seen at ``at``, a folder that is there, while the block lasts."""
    subprocess.run(["mount", "--bind", folder, at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)
