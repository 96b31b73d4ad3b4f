"""ComfyUI's own routes that name files: what of a request leaves the directories it may see."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import NamedTuple

from .paths import Places, is_within

# Folders of ComfyUI that hold no models.
_NO_MODELS = frozenset({"configs", "custom_nodes", "datasets"})


class Denial(NamedTuple):
    """A request that is refused: the status, and what the answer says."""

    status: int
    detail: str


# ComfyUI's assets read and write among the models; the boot switches them off.
CLOSED = Denial(404, "assets: they are closed here")
VOLUME_GONE = Denial(503, "volume: it is not mounted any more; mount it again")
_OUTSIDE = Denial(403, "filename: it lies outside of ComfyUI's directories")
_NOT_UPLOADED = Denial(
    400,
    "subfolder, filename: an upload goes below ComfyUI's input or temp directory or,"
    " with type=output, to <job>/input or <job>/output",
)
_NO_PREVIEW = Denial(404, "filename: there is no such preview")


def refuse_view(asked: Mapping[str, str], places: Places) -> Denial | None:
    """What refuses `/view` with the fields ``asked`` for; None: ComfyUI may answer.

    ComfyUI compares texts only, so that a link inside leads outside.
    """
    name = asked.get("filename", "")
    if name.startswith("blake3:"):
        return CLOSED  # by its hash: any file that ComfyUI ever registered, models included
    bare, directory = places.split(name)
    directory = directory or places.directory(asked.get("type", "output"))
    if directory is None:
        return None
    path = posixpath.join(directory, asked.get("subfolder", ""), posixpath.basename(bare))
    return None if is_within(directory, path) else _OUTSIDE


def refuse_upload(kind: str, subfolder: str, filename: str, places: Places) -> Denial | None:
    """What refuses `/upload/image` and `/upload/mask`; None: ComfyUI may answer.

    ComfyUI checks where the file goes, by its text, but makes ``subfolder`` wherever that is. On the volume an upload
    is a job's input or output: whatever else lies below jobs/ is other programs' (a model to every worker, a record).
    """
    directory = places.directory(kind)
    if directory is None:
        return None
    if posixpath.isabs(filename) or ".." in filename.split("/"):
        return _NOT_UPLOADED
    path = posixpath.join(directory, posixpath.normpath(subfolder), filename)
    inside = places.is_a_jobs(path) if kind == "output" else is_within(directory, path)
    return None if inside else _NOT_UPLOADED


def refuse_preview(folder: str, filename: str) -> Denial | None:
    """What refuses `/experiment/models/preview/...`; None: ComfyUI may answer (0.3 checks nothing)."""
    leaves = filename.startswith("/") or ".." in filename.split("/") or "\0" in filename
    return _NO_PREVIEW if leaves or folder in _NO_MODELS else None
