"""Which of the models ComfyUI lists, by the directories it reads and not by their names."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


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
    """Those of ``names`` (folder/file below ``root``) that are not listed, each with the reason.

    ``folder_paths``: the directories that each of ComfyUI's folders reads; ``files_of``: what a folder lists, which is
    asked once a folder.
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
        directory = resolved(folder)
        by = readers.get(directory, [])
        if not by:
            return Unlisted(name, f"no folder of ComfyUI's reads {directory}", known=False)
        if any(file in listed(reader) for reader in by):
            return None
        suffix = Path(file).suffix or "no ending"
        reason = f"{', '.join(by)} does not list it; is {suffix} an ending that it loads?"
        return Unlisted(name, reason, known=True)

    return tuple(unlisted for name in names if (unlisted := judge(name)) is not None)
