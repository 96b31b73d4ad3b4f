"""Where what a node saves goes: below the output/ of the job that its prefix names, else below the sender's own."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from .paths import Places, is_job_id, is_within  # noqa: TID252 - found by its folder

_DEFAULT = "ComfyUI"


class PrefixEscapes(Exception):
    """The prefix leaves ComfyUI's output directory."""


@dataclass(frozen=True)
class Sender:
    """Whose prompt it is: ``folder`` below jobs/ takes what names no job; where it ``is_job``, all the rest too."""

    folder: str
    is_job: bool = False


def place(prefix: str, places: Places, sender: Sender) -> str:
    """``prefix`` as ``<job>/output/<rest>``: as it is where it says so, else below the sender's own output.

    An absolute one below jobs/ (ours or another mount's) is made relative first. Two workers so never write one name.

    Raises PrefixEscapes.
    """
    inside = places.below_jobs(prefix)
    # ComfyUI normalizes it, too (folder_paths.get_save_image_path).
    placed = posixpath.normpath(prefix if inside is None else inside)
    escapes = posixpath.isabs(placed) or placed.split("/")[0] == ".."
    if not escapes and (sender.is_job or not _names_a_job(placed)):
        rest = placed.split("/", 2)[2] if _names_a_job(placed) else placed
        placed = f"{sender.folder}/output/{_DEFAULT if rest == '.' else rest}"
    folder = posixpath.join(places.jobs, posixpath.dirname(placed))
    if escapes or not is_within(places.jobs, folder):
        raise PrefixEscapes(f"{prefix!r:.200} leaves ComfyUI's output directory")
    return placed


def _names_a_job(prefix: str) -> bool:
    parts = prefix.split("/")
    return len(parts) > 2 and is_job_id(parts[0]) and parts[1] == "output"
