"""A directory tree as one file on the volume, and back: whole, checked, or not at all.

Small files crawl on a network volume (RunPod measured 40,000 of them: 429 s one by one, 5.9 s as one tar). So a tree
that every worker needs is packed once, and each worker unpacks it to its local disk. gzip at its lowest level: a
third of the size for a fifth more time to unpack (measured on SciPy, 2,400 files of 116 MB).

The digest beside an archive guards against damage, not against someone who can write to the volume.
Standard library only: environment.py runs before our own packages are there.
"""

import errno
import gzip
import hashlib
import logging
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from morpheus_boot.volume.publish import replacing, temporary_beside, write_whole

_LOG: Final = logging.getLogger("morpheus.archive")
_CHUNK_BYTES: Final = 1024 * 1024
# tarfile's own 10 KiB cost a quarter more time, and 1 MiB costs more again.
_STREAM_BYTES: Final = 64 * 1024
_LEVEL: Final = 1
_TOUCH_AFTER_S: Final = 86_400.0

# Holds the lock of what all workers need while one of them makes it, named as below .morpheus/archives.
ArchiveLock: TypeAlias = Callable[[str], AbstractContextManager[None]]


class _Damaged(Exception):
    """The archive is not what was packed; the text says why."""


class _Unreadable(Exception):
    """The volume did not give the archive; the text says why. Another time it may."""


def digest_of(archive: Path) -> Path:
    """The file beside ``archive`` that holds its SHA-256, as sha256sum writes it."""
    return archive.with_name(f"{archive.name}.sha256")


def pack(tree: Path, archive: Path) -> None:
    """Publishes everything below ``tree`` as ``archive``, a .tar.gz, with its digest beside it.

    Files, folders and links that stay inside are packed, and of their modes whether they can be executed; the
    same tree makes the same bytes. Raises OSError; then ``archive`` is what it was before.
    """
    with replacing(archive) as file:
        _write(tree, file)
        digest = _sha256(file)
        # The digest first: whoever finds the archive finds its digest.
        write_whole(digest_of(archive), f"{digest}  {archive.name}\n".encode())


def unpack(archive: Path, folder: Path) -> bool:
    """Makes ``folder`` from ``archive``, at once; False where the archive is missing, unreadable or damaged.

    Either of these two is named in a warning, and a damaged one is removed. An archive's mtime says, to the day,
    when it was last used. Raises OSError where ``folder`` can't be written.
    """
    try:
        file = archive.open("rb")
    except FileNotFoundError:
        return False
    except OSError as error:
        _LOG.warning("%s: can't be read (%s)", archive, error.strerror)
        return False
    try:
        with file, staged(folder) as staging:
            inode = os.fstat(file.fileno()).st_ino
            _check(archive, file)
            _extract(file, staging)
    except _Unreadable as error:
        _LOG.warning("%s: can't be read (%s)", archive, error)
        return False
    except _Damaged as error:
        _LOG.warning("%s: damaged (%s), it is made again", archive, error)
        with suppress(OSError):
            # Another worker may have published a whole one meanwhile.
            if archive.stat().st_ino == inode:
                archive.unlink()
        return False
    _touch(archive)
    return True


def provide(
    folder: Path,
    archive: Path,
    make: Callable[[Path], bool],
    lock: AbstractContextManager[None] | None = None,
) -> None:
    """Puts ``folder`` in place where it isn't: from ``archive``, else made, by one worker at a time with ``lock``.

    ``make`` fills an empty folder and says whether it is worth keeping. Where the volume takes no archive, the next
    worker makes it, too. Raises OSError where ``folder`` can't be written, and what ``make`` and ``lock`` raise.
    """
    if folder.is_dir() or unpack(archive, folder):
        return
    with lock or nullcontext():
        if unpack(archive, folder):
            return
        with staged(folder) as staging:
            worth_keeping = make(staging)
        if worth_keeping:
            try:
                pack(folder, archive)
            except OSError as error:
                _LOG.warning("%s: can't be kept on the volume (%s)", archive, error.strerror)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, which takes that name when the block ends well and is removed otherwise.

    Where another process has put ``folder`` there meanwhile, that one stays. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = temporary_beside(folder)
    staging.mkdir()
    try:
        yield staging
        try:
            staging.rename(folder)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def stray_links(tree: Path) -> tuple[Path, ...]:
    """The symlinks below ``tree`` that lead out of it, which no archive holds. Raises OSError."""
    root = Path(os.path.realpath(tree))
    links = [path for path in _below(tree) if path.is_symlink()]
    return tuple(link for link in links if not _realpath(link).is_relative_to(root))


def _realpath(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _below(folder: Path) -> Iterator[Path]:
    """All below ``folder`` in the order of names, each folder before what it holds; links are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))


def _write(tree: Path, file: BinaryIO) -> None:
    stray = frozenset(stray_links(tree))
    # Neither name nor time in gzip's header: the same tree makes the same bytes.
    with (
        gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for path in _below(tree):
            if path not in stray:
                _add(tar, path, path.relative_to(tree).as_posix())


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    if path.is_symlink():
        member.type = tarfile.SYMTYPE
        member.linkname = str(path.readlink())
        tar.addfile(member)
    elif path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(member)
    elif path.is_file():
        with path.open("rb") as content:
            stat = os.fstat(content.fileno())
            member.size = stat.st_size
            member.mode = 0o755 if stat.st_mode & 0o100 else 0o644
            tar.addfile(member, content)


def _sha256(file: BufferedReader | BufferedRandom) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _check(archive: Path, file: BufferedReader) -> None:
    try:
        wanted = digest_of(archive).read_text("utf-8").split(" ")[0]
        found = _sha256(file)
    except (FileNotFoundError, UnicodeError) as error:
        raise _Damaged(str(error)) from error
    except OSError as error:
        raise _Unreadable(error.strerror) from error
    if found != wanted:
        raise _Damaged("its SHA-256 is not the recorded one")
    file.seek(0)


def _extract(file: BinaryIO, folder: Path) -> None:
    """Links come last, so that nothing is ever written through one."""
    links: list[tuple[Path, str]] = []
    try:
        with tarfile.open(fileobj=file, mode="r|gz", bufsize=_STREAM_BYTES) as tar:
            for member in tar:
                path = folder / _inside(member.name)
                if member.issym():
                    links.append((path, member.linkname))
                else:
                    _extract_one(tar, member, path)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise _Damaged(str(error)) from error
    for path, target in links:
        path.symlink_to(target)
    if stray := stray_links(folder):
        raise _Damaged(f"{stray[0].relative_to(folder)} leads out of it")


def _inside(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise _Damaged(f"{name} lies outside")
    return name


def _extract_one(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = tar.extractfile(member) if member.isreg() else None
    if content is not None:
        with path.open("xb") as file:
            shutil.copyfileobj(content, file, _CHUNK_BYTES)
            os.fchmod(file.fileno(), 0o755 if member.mode & 0o100 else 0o644)
    elif member.isdir():
        path.mkdir()
    else:
        raise _Damaged(f"{member.name} is neither a file, a folder nor a link")


def _touch(archive: Path) -> None:
    with suppress(OSError):  # a read-only volume
        if time.time() - archive.stat().st_mtime > _TOUCH_AFTER_S:
            os.utime(archive)
