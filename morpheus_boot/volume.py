"""The network volume: which directory it is, what it is mounted from, and how much room it has."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.errors import NotSetUp
from morpheus_boot.layout import Layout

# The guide's mount path, that of Serverless, and that of Pods. One volume may be seen under any of them.
MOUNT_PATHS: Final = (Path("/workspace/job_data"), Path("/runpod-volume"), Path("/workspace"))
_OFF_RUNPOD: Final = "job_data"
_MOUNTS_FILE: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Volume:
    """The volume: its directory, the mount it lies on, and what was bought in bytes (None: not known)."""

    root: Path
    mount_point: Path
    size_bytes: int | None

    @property
    def layout(self) -> Layout:
        """Where everything lies on it."""
        return Layout(self.root)


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on the volume, by whose they are."""

    cache_bytes: int
    parts_bytes: int
    archives_bytes: int
    jobs_bytes: int | None = None

    @property
    def total_bytes(self) -> int:
        """All that was counted; jobs only where they were walked."""
        return self.cache_bytes + self.parts_bytes + self.archives_bytes + (self.jobs_bytes or 0)


def find_volume(
    given: Path | None,
    size_gb: float | None,
    *,
    on_runpod: bool,
    mount_points: frozenset[Path] | None = None,
) -> Volume:
    """The volume's directory, which need not exist yet off RunPod.

    ``given`` is MORPHEUS_VOLUME; without it the first mounted one of the usual paths, off RunPod ./job_data.

    Raises:
        NotSetUp: on RunPod nothing is mounted there, so that models would vanish with the container.
    """
    mounts = read_mount_points() if mount_points is None else mount_points
    root = given or next((path for path in MOUNT_PATHS if path in mounts), None)
    if root is None:
        if on_runpod:
            looked = ", ".join(map(str, MOUNT_PATHS))
            raise NotSetUp(
                "volume",
                f"no network volume is mounted (looked at {looked})",
                "attach a network volume, or set MORPHEUS_VOLUME to where it is mounted",
            )
        root = Path.cwd() / _OFF_RUNPOD
    mount_point = _mount_point_of(root, mounts)
    if on_runpod and mount_point == Path("/"):
        raise NotSetUp(
            "volume",
            f"{root} lies on the container's own disk, where models vanish with the container",
            "attach a network volume there, or set MORPHEUS_VOLUME to where it is mounted",
        )
    return Volume(root, mount_point, int(size_gb * 10**9) if size_gb is not None else None)


def read_mount_points() -> frozenset[Path]:
    """All mount points of this container (proc(5), mountinfo: the fifth field, octal-escaped)."""
    lines = _MOUNTS_FILE.read_text().splitlines()
    return frozenset(Path(_unescape(line.split(" ")[4])) for line in lines)


def _unescape(field: str) -> str:
    return field.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")


def _mount_point_of(path: Path, mounts: frozenset[Path]) -> Path:
    resolved = path.resolve()
    return next((p for p in (resolved, *resolved.parents) if p in mounts), Path("/"))


def measure(layout: Layout, *, with_jobs: bool) -> Usage:
    """Adds up what lies on the volume. Jobs may be many files: they are walked only when asked for."""
    return Usage(
        cache_bytes=_bytes_below(layout.model_cache),
        parts_bytes=_bytes_below(layout.parts),
        archives_bytes=_bytes_below(layout.archives),
        jobs_bytes=_bytes_below(layout.jobs) if with_jobs else None,
    )


def _bytes_below(folder: Path) -> int:
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    try:
        entries: Iterable[os.DirEntry[str]] = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _sizes(Path(entry.path))
        else:
            try:
                yield entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # another worker renamed or removed it between the listing and the stat


def size_text(size_bytes: int | None) -> str:
    """Bytes as a person reads them, in powers of ten as RunPod sells them."""
    if size_bytes is None:
        return "an unknown size"
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"
