"""The one hierarchy of errors: each names the thing, the cause and the mend, and carries its exit code."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path


class Exit(IntEnum):
    """Exit codes, those of sysexits(3)."""

    DONE = 0
    USAGE = 64
    MANIFEST = 65
    UNAVAILABLE = 69
    BUG = 70
    FULL = 73
    STORAGE = 74
    WAITED = 75
    DENIED = 77
    SETUP = 78


class MorpheusError(Exception):
    """What a user can mend: ``subject`` (the thing), ``cause`` (what is wrong), ``mend`` (what to do)."""

    exit_code: Exit = Exit.BUG

    def __init__(self, subject: str, cause: str, mend: str) -> None:
        super().__init__(subject, cause, mend)
        self.subject = subject
        self.cause = cause
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.subject}: {self.cause}; {self.mend}"


class UsageError(MorpheusError):
    """The command line or an environment variable does not say what it must."""

    exit_code = Exit.USAGE


class ManifestError(MorpheusError):
    """One mistake in models.yaml, or two manifests that contradict each other."""

    exit_code = Exit.MANIFEST


class OriginUnavailable(MorpheusError):
    """An origin can't be reached, answers nonsense, or sends what is not the model."""

    exit_code = Exit.UNAVAILABLE


class OriginDenied(MorpheusError):
    """An origin refuses: 401, 403, gated."""

    exit_code = Exit.DENIED


class ServiceFailed(MorpheusError):
    """ComfyUI or the file server ended by itself."""

    exit_code = Exit.UNAVAILABLE


class VolumeFull(MorpheusError):
    """The models don't fit on the volume."""

    exit_code = Exit.FULL


class StorageFailed(MorpheusError):
    """Reading or writing failed, or content on the volume is damaged."""

    exit_code = Exit.STORAGE


class WaitedTooLong(MorpheusError):
    """A lock or a readiness did not come in time; trying again may help."""

    exit_code = Exit.WAITED


class NotSetUp(MorpheusError):
    """The machine lacks something: a volume, ComfyUI, a Python, a free port."""

    exit_code = Exit.SETUP


class SeveralErrors(MorpheusError):
    """Several things failed; all are named, and the exit code is the first one's."""

    def __init__(self, errors: Sequence[MorpheusError]) -> None:
        super().__init__(f"{len(errors)} errors", "; ".join(map(str, errors)), "see each")
        self.errors = tuple(errors)
        self.exit_code = errors[0].exit_code

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


def all_of(errors: Sequence[MorpheusError]) -> MorpheusError:
    """The only error itself, or one that names all of them."""
    return errors[0] if len(errors) == 1 else SeveralErrors(errors)


def each_of(error: MorpheusError) -> tuple[MorpheusError, ...]:
    """``error`` as a log tells it, an error a line: itself, or those that SeveralErrors names."""
    return error.errors if isinstance(error, SeveralErrors) else (error,)


_STORAGE: dict[int, tuple[type[MorpheusError], str, str]] = {
    # RunPod's volume answers EDQUOT while df still shows the whole cluster's terabytes.
    errno.EDQUOT: (
        VolumeFull,
        "the volume's quota is used up",
        "enlarge the volume, or free room with gc",
    ),
    errno.ENOSPC: (
        VolumeFull,
        "no space is left on the volume",
        "enlarge the volume, or free room with gc",
    ),
    errno.EROFS: (StorageFailed, "the volume is read-only", "mount it writable"),
    errno.EIO: (
        StorageFailed,
        "the volume reports an I/O error",
        "try again; if it stays, ask RunPod about this volume",
    ),
    errno.ENXIO: (
        StorageFailed,
        "the volume's storage server is gone",
        "try again; if it stays, ask RunPod about this volume",
    ),
    errno.ESTALE: (
        StorageFailed,
        "the volume's file handle is stale",
        "try again; if it stays, restart the Pod",
    ),
    **dict.fromkeys(
        (errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS),
        (
            StorageFailed,
            "the volume knows no locks (flock)",
            "mount it with flock, or take another volume",
        ),
    ),
    errno.EACCES: (StorageFailed, "permission denied", "run as the user who owns the volume"),
    errno.EPERM: (StorageFailed, "operation not permitted", "run as the user who owns the volume"),
    errno.ELOOP: (StorageFailed, "links lead round in a circle", "remove the link in its path"),
    errno.EISDIR: (StorageFailed, "a directory has its name", "move it away"),
    errno.EEXIST: (StorageFailed, "a folder's name is taken", "move what has that name away"),
    errno.ENOTDIR: (StorageFailed, "a folder's name is taken", "move what has that name away"),
    errno.EXDEV: (
        StorageFailed,
        "it lies on another file system than the volume",
        "remove the link or mount in its path",
    ),
}


def is_full(error: OSError) -> bool:
    """Whether there is no room for what was asked of the volume."""
    return error.errno in (errno.EDQUOT, errno.ENOSPC)


def storage_error(subject: str, path: Path, error: OSError) -> MorpheusError:
    """The error of ours for what the operating system said about ``path`` on the volume, named as what it is.

    The path that is shown is the one the system named, where it named one: a parent may be in the way.
    """
    kind, cause, mend = _STORAGE.get(
        error.errno or 0,
        (
            StorageFailed,
            (error.strerror or str(error)).lower(),
            "look at this path on the volume",
        ),
    )
    name = errno.errorcode.get(error.errno or 0, "OSError")
    return kind(subject, f"{cause} ({name} at {_path_of(error, path)})", mend)


@contextmanager
def storage_errors(subject: str, path: Path) -> Iterator[None]:
    """What the operating system says in the block of ``path`` on the volume, as storage_error() has it."""
    try:
        yield
    except OSError as error:
        raise storage_error(subject, path, error) from error


def local_error(subject: str, path: Path, error: OSError) -> StorageFailed:
    """As storage_error(), for a ``path`` on the container's own disk: the volume has no part in it."""
    return StorageFailed(
        subject,
        f"{_path_of(error, path)} can't be written ({error.strerror or error})",
        "make room there that this user may write, or set MORPHEUS_LOCAL_DIR to another local folder",
    )


def _path_of(error: OSError, path: Path) -> Path:
    # Of a rename the new name says more: what was renamed is a part of ours.
    named = error.filename if error.filename2 is None else error.filename2
    return Path(named) if isinstance(named, str) and "/" in named else path
