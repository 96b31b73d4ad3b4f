"""Which of the models ComfyUI lists, by the directories it reads and not by their names."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# What ComfyUI takes for a model (folder_paths.supported_pt_extensions). What else a text encoder's folder holds, its
# config.json and tokenizer.model, is for whoever loads that folder as a whole.
_MODELS: Final = frozenset({".bin", ".ckpt", ".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".sft"})
# DiffusersLoader takes folders alone: no file of them is listed.
_FOLDERS_OF_FOLDERS: Final = frozenset({"diffusers"})


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A model that ComfyUI does not list. ``known``: some loader reads its folder, so that it should be listed."""

    name: str
    reason: str
    known: bool


def find_unlisted(
    root: Path,
    names: Iterable[str],
    folder_paths: Mapping[str, Iterable[str]],
    files_of: Callable[[str], frozenset[str]],
) -> tuple[Unlisted, ...]:
    """Those models among ``names`` (folder/file below ``root``) that are not listed, each with the reason.

    A file is a model by its ending; of the others only a link that dangles counts. ``folder_paths``: the directories
    that each of ComfyUI's folders reads; ``files_of``: what a folder lists, which is asked once a folder.
    """
    readers: dict[Path, list[str]] = {}
    for key, paths in folder_paths.items():
        # A folder may be told to read one directory twice.
        for directory in {Path(path).resolve() for path in paths}:
            readers.setdefault(directory, []).append(key)
    resolved = functools.cache(lambda folder: (root / folder).resolve())
    listed = functools.cache(files_of)

    def judge(name: str) -> Unlisted | None:
        # ComfyUI lists dangling links too: only our own look tells.
        if not (root / name).exists():
            return Unlisted(name, "its link dangles", known=True)
        folder, _, file = name.partition("/")
        if Path(file).suffix.lower() not in _MODELS or folder in _FOLDERS_OF_FOLDERS:
            return None
        directory = resolved(folder)
        by = readers.get(directory, [])
        if not by:
            return Unlisted(name, f"no folder of ComfyUI's reads {directory}", known=False)
        if any(file in listed(reader) for reader in by):
            return None
        reason = (
            f"{', '.join(by)} does not list it; is {Path(file).suffix} an ending that it loads?"
        )
        return Unlisted(name, reason, known=True)

    return tuple(unlisted for name in names if (unlisted := judge(name)) is not None)
