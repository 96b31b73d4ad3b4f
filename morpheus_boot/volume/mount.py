"""The network volume: which directory it is, what it is mounted from, and how much room it has."""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.errors import NotSetUp
from morpheus_boot.volume.layout import Layout

# The guide's mount path, that of Serverless, and that of Pods. One volume may be seen under any of them.
MOUNT_PATHS: Final = (Path("/workspace/job_data"), Path("/runpod-volume"), Path("/workspace"))
_OFF_RUNPOD: Final = "job_data"
_MOUNTS_FILE: Final = Path("/proc/self/mountinfo")
# What is deeper than a path can name was not made through one: a few bytes.
_NOT_COUNTED: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_NETWORK_KINDS: Final = ("fuse", "nfs", "ceph", "cifs", "9p")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of this container; ``kind`` is the file system's type, as in /proc/mounts."""

    point: Path
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether it is a network's: RunPod's volume is MooseFS over FUSE."""
        return self.kind.startswith(_NETWORK_KINDS)


@dataclass(frozen=True, slots=True)
class Volume:
    """The volume: its directory, the mount it lies on, and what was bought in bytes (None: not known)."""

    root: Path
    mount: Mount
    size_bytes: int | None

    @property
    def layout(self) -> Layout:
        """Where everything lies on it."""
        return Layout(self.root)


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on the volume, by whose they are; ``jobs_bytes`` None: they were not walked."""

    cache_bytes: int
    archives_bytes: int
    jobs_bytes: int | None = None


def find_volume(
    given: Path | None,
    size_gb: float | None,
    *,
    on_runpod: bool,
    mounts: tuple[Mount, ...] | None = None,
) -> Volume:
    """The volume's directory, which need not exist yet off RunPod.

    ``given`` is MORPHEUS_VOLUME; without it the first mounted one of the usual paths, off RunPod ./job_data.

    Raises:
        NotSetUp: on RunPod nothing is mounted there, so that models would vanish with the container; off RunPod it is
            not given, and there is no working directory.
    """
    known = read_mounts() if mounts is None else mounts
    points = {mount.point for mount in known}
    root = given or next((path for path in MOUNT_PATHS if path in points), None)
    if root is None:
        if on_runpod:
            looked = ", ".join(map(str, MOUNT_PATHS))
            raise NotSetUp(
                "volume",
                f"no network volume is mounted (looked at {looked})",
                "attach a network volume, or set MORPHEUS_VOLUME to where it is mounted",
            )
        root = _working_directory() / _OFF_RUNPOD
    mount = mount_of(root, known)
    if on_runpod and mount.point == Path("/"):
        raise NotSetUp(
            "volume",
            f"{root} lies on the container's own disk, where models vanish with the container",
            "attach a network volume there, or set MORPHEUS_VOLUME to where it is mounted",
        )
    return Volume(root, mount, int(size_gb * 10**9) if size_gb is not None else None)


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise NotSetUp(
            "volume",
            "it is not given, and the working directory is gone",
            "change to one that is there, or set MORPHEUS_VOLUME",
        ) from error


def read_mounts() -> tuple[Mount, ...]:
    """All mounts of this container, by proc(5)'s mountinfo; the later one of two at one point counts."""
    mounts: dict[Path, Mount] = {}
    for line in _MOUNTS_FILE.read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_unescape(before.split(" ")[4]))
        mounts[point] = Mount(point, after.split(" ")[0])
    return tuple(mounts.values())


def mount_of(path: Path, mounts: tuple[Mount, ...]) -> Mount:
    """The mount that ``path`` lies on."""
    by_point = {mount.point: mount for mount in mounts}
    resolved = path.resolve()
    found = (by_point[p] for p in (resolved, *resolved.parents) if p in by_point)
    return next(found, Mount(Path("/"), "unknown"))


def _unescape(field: str) -> str:
    # Spaces and the like stand as octal escapes; the rest is UTF-8.
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def measure(layout: Layout, *, with_jobs: bool) -> Usage:
    """Adds up what lies on the volume. Jobs may be many files: they are walked only when asked for."""
    return Usage(
        cache_bytes=bytes_below(layout.model_cache),
        archives_bytes=bytes_below(layout.archives),
        jobs_bytes=bytes_below(layout.jobs) if with_jobs else None,
    )


def bytes_of(file: Path) -> int:
    """The bytes of a file, no link followed; 0 where it is not there. Raises OSError."""
    try:
        return file.lstat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def bytes_below(folder: Path) -> int:
    """The bytes of all files below ``folder``; no link is followed. Raises OSError."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    pending = [folder]
    while pending:  # a recursion would end where a client has nested a thousand folders
        for entry in _entries(pending.pop()):
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
                continue
            try:
                yield entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # another worker renamed or removed it between the listing and the stat


def _entries(folder: Path) -> "Iterable[os.DirEntry[str]]":
    try:
        return list(os.scandir(folder))
    except OSError as error:
        if error.errno not in _NOT_COUNTED:
            raise
        return ()


def size_text(size_bytes: int | None) -> str:
    """Bytes as a person reads them, in powers of ten as RunPod sells them."""
    if size_bytes is None:
        return "an unknown size"
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"
