"""Closes in ComfyUI itself what its requests don't show: file names that come over a link or inside another value.

ComfyUI refuses these itself since 0.28, so that no node of its own depends on them.
"""

from __future__ import annotations

import functools
import posixpath
from typing import Any

from .paths import Places, is_within  # noqa: TID252 - found by its folder


def guard(folder_paths: Any, places: Places) -> None:  # noqa: ANN401 - ComfyUI's module
    """Holds ``folder_paths``' answers to ``places``: its core nodes ask it for every path but a model's."""
    annotated = folder_paths.get_annotated_filepath
    exists = folder_paths.exists_annotated_filepath
    save_path = folder_paths.get_save_image_path

    @functools.wraps(annotated)
    def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
        path: str = annotated(name) if default_dir is None else annotated(name, default_dir)
        # A custom node may name a directory of its own.
        own = default_dir is not None and is_within(default_dir, path)
        if not own and not places.hold(path):
            raise ValueError(f"Invalid file path: {name!r}")
        return path

    @functools.wraps(exists)
    def exists_annotated_filepath(name: str) -> bool:
        return places.hold(places.located(name)) and bool(exists(name))

    @functools.wraps(save_path)
    def get_save_image_path(
        filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
    ) -> object:
        folder = posixpath.join(output_dir, posixpath.dirname(posixpath.normpath(filename_prefix)))
        if not is_within(output_dir, folder):
            raise ValueError(f"Invalid filename prefix: {filename_prefix!r}")
        return save_path(filename_prefix, output_dir, image_width, image_height)

    folder_paths.get_annotated_filepath = get_annotated_filepath
    folder_paths.exists_annotated_filepath = exists_annotated_filepath
    folder_paths.get_save_image_path = get_save_image_path
