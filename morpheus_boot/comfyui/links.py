"""Symlinks from ComfyUI's models/ to the cache: made atomically, and never in the place of a real file."""

import logging
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.errors import NotSetUp, local_error

_LOG: Final = logging.getLogger("morpheus.comfyui")


@dataclass(frozen=True, slots=True)
class Link:
    """One name below ComfyUI's models/ and the cached file behind it."""

    name: str
    target: Path


def put_links(
    models: Path, links: Iterable[Link], cache: Path, *, running: bool = False
) -> tuple[Link, ...]:
    """Makes every link below ``models``, and removes dead ones that lead into ``cache``.

    A link that is right is left alone; a real file of the same name is kept, and named in a warning. While
    ComfyUI is ``running``, a link that led elsewhere is named too: ComfyUI has cached the old model by that name.
    Returns the links that are in place.

    Raises:
        NotSetUp: ``models`` isn't writable.
        StorageFailed: a link can't be made for another reason.
    """
    wanted = tuple(links)
    try:
        _remove_dead(models, cache)
        return tuple(
            link for link in wanted if _put(models / link.name, link.target, running=running)
        )
    except PermissionError as error:
        raise NotSetUp(
            "ComfyUI", f"{models} is not writable", "run as the user who owns ComfyUI's folder"
        ) from error
    except OSError as error:
        raise local_error("ComfyUI's models", models, error) from error


def _put(name: Path, target: Path, *, running: bool) -> bool:
    if name.is_symlink():
        if name.readlink() == target:
            return True
        if running:
            _LOG.warning(
                "%s: another file now; ComfyUI has the old one until it is restarted", name
            )
    elif name.exists():
        # Old scripts linked whole folders into the cache: then this name is the cached file itself.
        same = name.samefile(target)
        if not same:
            _LOG.warning("%s: a file of ComfyUI's own has this name and is kept", name)
        return same
    name.parent.mkdir(parents=True, exist_ok=True)
    temporary = name.parent / f".{secrets.token_hex(6)}.link"
    temporary.symlink_to(target)
    try:
        temporary.replace(name)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return True


def _remove_dead(models: Path, cache: Path) -> None:
    for link in _symlinks_below(models):
        target = link.readlink()
        if target.is_relative_to(cache) and not link.exists():
            _LOG.info("%s: removed, its model is gone", link)
            link.unlink(missing_ok=True)


def _symlinks_below(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir():
                yield from _symlinks_below(Path(entry.path))
