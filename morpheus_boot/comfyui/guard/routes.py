"""ComfyUI's own routes that name files: what of a request leaves the directories it may see."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from .paths import MODEL_FOLDERS, Places, is_within  # noqa: TID252 - found by its folder

_NOT_FOUND, _BAD_REQUEST, _FORBIDDEN = 404, 400, 403
# Folders of ComfyUI that hold no models.
_NO_MODELS = frozenset({"configs", "custom_nodes", "datasets"})


def refuse_view(asked: Mapping[str, str], places: Places) -> int | None:
    """The status that refuses `/view` with the fields ``asked`` for; None: ComfyUI may answer.

    ComfyUI compares texts only, so that a link inside leads outside.
    """
    name = asked.get("filename", "")
    if name.startswith("blake3:"):
        return _NOT_FOUND  # an asset by its hash: any file that ComfyUI ever registered, models included
    bare, directory = places.split(name)
    directory = directory or places.directory(asked.get("type", "output"))
    if directory is None:
        return None
    path = posixpath.join(directory, asked.get("subfolder", ""), posixpath.basename(bare))
    return None if is_within(directory, path) else _FORBIDDEN


def refuse_upload(kind: str, subfolder: str, filename: str, places: Places) -> int | None:
    """The status that refuses `/upload/image` and `/upload/mask`; None: ComfyUI may answer.

    ComfyUI checks where the file goes, by its text, but makes ``subfolder`` wherever that is. A model folder of its
    output directory takes no upload: what lies there is a model to every worker.
    """
    directory = places.directory(kind)
    if directory is None:
        return None
    if posixpath.isabs(filename) or ".." in filename.split("/"):
        return _BAD_REQUEST
    path = posixpath.join(directory, posixpath.normpath(subfolder), filename)
    if not is_within(directory, path):
        return _BAD_REQUEST
    top = posixpath.relpath(posixpath.realpath(path), posixpath.realpath(directory)).split("/")[0]
    return _BAD_REQUEST if kind == "output" and top in MODEL_FOLDERS else None


def refuse_preview(folder: str, filename: str) -> int | None:
    """The status that refuses `/experiment/models/preview/...`; None: ComfyUI may answer (0.3 checks nothing)."""
    leaves = filename.startswith("/") or ".." in filename.split("/") or "\0" in filename
    return _NOT_FOUND if leaves or folder in _NO_MODELS else None
