"""Which of the models ComfyUI lists, by the directories it reads and not by their names."""

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

    ``folder_paths``: the directories that each of ComfyUI's folders reads; ``files_of``: what a folder lists.
    """
    return tuple(
        missing
        for name in names
        if (missing := _judge(root, name, folder_paths, files_of)) is not None
    )


def _judge(
    root: Path,
    name: str,
    folder_paths: Mapping[str, Iterable[str]],
    files_of: Callable[[str], frozenset[str]],
) -> Unlisted | None:
    # ComfyUI lists dangling links too: only our own look tells.
    if not (root / name).exists():
        return Unlisted(name, "its link dangles", known=True)
    folder, _, file = name.partition("/")
    directory = (root / folder).resolve()
    readers = [
        key
        for key, paths in folder_paths.items()
        if any(Path(path).resolve() == directory for path in paths)
    ]
    if not readers:
        return Unlisted(name, f"no folder of ComfyUI's reads {directory}", known=False)
    if any(file in files_of(reader) for reader in readers):
        return None
    suffix = Path(file).suffix or "no ending"
    reason = f"{', '.join(readers)} does not list it; is {suffix} an ending that it loads?"
    return Unlisted(name, reason, known=True)
