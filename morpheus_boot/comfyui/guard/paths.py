"""Where ComfyUI reads and writes, which path a name stands for there, and where what a node saves goes.

`posixpath` is ComfyUI's own `os.path` on Linux: what is decided here must be what ComfyUI then does.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from functools import cached_property

# ComfyUI's main.py takes these names below its output directory for model folders.
_MODEL_FOLDERS = frozenset({"checkpoints", "clip", "vae", "diffusion_models", "loras"})
_DEFAULT_PREFIX = "ComfyUI"
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_job_id(text: str) -> bool:
    """Whether ``text`` may name a job's folder: the rule of morpheus_boot/volume/layout.py."""
    return _JOB_ID.fullmatch(text) is not None and text not in _MODEL_FOLDERS


def is_within(folder: str, path: str) -> bool:
    """Whether ``path`` is ``folder`` or lies in it, by what the links in both lead to.

    False also for what can't be a path: a NUL, a lone surrogate.
    """
    real = _real(path)
    return real is not None and _lies_in(posixpath.realpath(folder), real)


def _real(path: str) -> str | None:
    try:
        return posixpath.realpath(path)
    except ValueError:
        return None


def _lies_in(folder: str, path: str) -> bool:
    return posixpath.commonpath((folder, path)) == folder


@dataclass(frozen=True)
class Places:
    """ComfyUI's directories, absolute; ``jobs`` is its output.

    ``other_jobs``: jobs/ of the same volume under the paths where other workers may have mounted it.
    """

    jobs: str
    input: str
    temp: str
    other_jobs: tuple[str, ...] = ()

    def directory(self, kind: str) -> str | None:
        """The directory that `type=` or an annotation names; None for any other word."""
        return {"output": self.jobs, "input": self.input, "temp": self.temp}.get(kind)

    def split(self, name: str) -> tuple[str, str | None]:
        """``x.png [output]`` as the name and its directory (folder_paths.annotated_filepath); None: not annotated."""
        for kind in ("output", "input", "temp"):
            # One character more than the brackets goes, whatever it is: so does ComfyUI.
            if name.endswith(f"[{kind}]"):
                return name[: -len(kind) - 3], self.directory(kind)
        return name, None

    def located(self, name: str) -> str:
        """The path that ComfyUI takes ``name`` for (folder_paths.get_annotated_filepath)."""
        bare, directory = self.split(name)
        return posixpath.join(directory or self.input, bare)

    def hold(self, path: str) -> bool:
        """Whether ``path`` lies in input, temp or jobs, through links too.

        Both as it stands, which ComfyUI 0.3 opens, and normalized, as later ones do: ``link/..`` is not the same.
        """
        forms = {_real(path), _real(posixpath.normpath(path))}
        return all(
            form is not None and any(_lies_in(folder, form) for folder in self._folders)
            for form in forms
        )

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        # A prompt may name thousands of files, and each step of a path is a request to the volume.
        return tuple(map(posixpath.realpath, (self.input, self.temp, self.jobs)))

    def is_a_jobs(self, path: str) -> bool:
        """Whether ``path`` lies in a job's input or output, through links too."""
        real, jobs = _real(path), self._folders[-1]
        if real is None or not _lies_in(jobs, real):
            return False
        job, *rest = posixpath.relpath(real, jobs).split("/")
        return is_job_id(job) and len(rest) > 1 and rest[0] in {"input", "output"}

    def below_jobs(self, path: str) -> str | None:
        """An absolute path below jobs/, ours or another mount's, relative to it; None for any other text."""
        return _below((self.jobs, *self.other_jobs), path)

    def here(self, path: str) -> str | None:
        """A path below another mount's jobs/ as it is in this container; None for any other text."""
        relative = _below(self.other_jobs, path)
        return posixpath.join(self.jobs, relative) if relative else None


def _below(folders: tuple[str, ...], path: str) -> str | None:
    if not path.startswith("/"):
        return None
    normal = posixpath.normpath("/" + path.lstrip("/"))
    for folder in folders:
        if normal.startswith(f"{folder}/"):
            return normal[len(folder) + 1 :]
    return None


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
        placed = f"{sender.folder}/output/{_DEFAULT_PREFIX if rest == '.' else rest}"
    folder = posixpath.join(places.jobs, posixpath.dirname(placed))
    if escapes or not is_within(places.jobs, folder):
        raise PrefixEscapes(f"{prefix!r:.200} leaves ComfyUI's output directory")
    return placed


def _names_a_job(prefix: str) -> bool:
    parts = prefix.split("/")
    return len(parts) > 2 and is_job_id(parts[0]) and parts[1] == "output"
