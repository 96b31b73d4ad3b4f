"""Puts our middleware in front of the ComfyUI that imports us, and holds its files to our places."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import posixpath
import site
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .door import Door
from .middleware import ComfyUI, make_middleware, sandbox_documents
from .paths import Places, is_within
from .routes import VOLUME_GONE

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Middleware

_LOOK_EVERY_S = 0.02


def install(environ: Mapping[str, str]) -> None:
    """Guards the running ComfyUI before it listens, as the boot says in ComfyUI's environment.

    MORPHEUS_NODE_JOBS is ComfyUI's output directory, _WORKER ours among the workers, _MOUNTS (parted by colons) where
    workers may see the volume, _ORIGINS (parted by spaces) whose pages are no strangers,
    _TOKEN_SHA256 (hex digits) the token's digest, if there is one.

    Raises whatever stands in the way.
    """
    folder_paths = importlib.import_module("folder_paths")
    server = importlib.import_module("server").PromptServer.instance
    places = _places(environ, folder_paths)
    is_there = watch_volume(places)
    hold_to(places, folder_paths, is_there)
    manager = getattr(server, "node_replace_manager", None)
    comfyui = ComfyUI(
        places,
        _told(environ, "MORPHEUS_NODE_WORKER"),
        importlib.import_module("nodes").NODE_CLASS_MAPPINGS,
        (lambda _prompt: None) if manager is None else manager.apply_replacements,
        is_there,
    )
    digest = environ.get("MORPHEUS_NODE_TOKEN_SHA256")
    origins = environ.get("MORPHEUS_NODE_ORIGINS", "").split()
    door = Door(bytes.fromhex(digest) if digest else None, origins)
    _put_first(server.app, make_middleware(comfyui, door))
    server.app.on_response_prepare.append(sandbox_documents)


def _told(environ: Mapping[str, str], name: str) -> str:
    if not environ.get(name):
        raise ValueError(f"{name} is not set")
    return environ[name]


def _places(environ: Mapping[str, str], folder_paths: Any) -> Places:
    told = posixpath.normpath(_told(environ, "MORPHEUS_NODE_JOBS"))
    output = posixpath.abspath(folder_paths.get_output_directory())
    if output != told:
        raise ValueError(f"ComfyUI's output directory is {output}, not {told}")
    mounts = filter(None, environ.get("MORPHEUS_NODE_MOUNTS", "").split(":"))
    elsewhere = [posixpath.normpath(f"{mount}/jobs") for mount in mounts]
    return Places(
        jobs=output,
        input=posixpath.abspath(folder_paths.get_input_directory()),
        temp=posixpath.abspath(folder_paths.get_temp_directory()),
        other_jobs=tuple(jobs for jobs in elsewhere if jobs != output),
    )


def _put_first(app: web.Application, middleware: Middleware) -> None:
    """Now, and again when all custom nodes are imported: each may put its own before ours."""
    app.middlewares.insert(0, middleware)

    async def stay_first(app: web.Application) -> None:
        app.middlewares[:] = [middleware, *(m for m in app.middlewares if m is not middleware)]

    app.on_startup.append(stay_first)


def watch_volume(places: Places) -> Callable[[], bool]:
    """Whether the volume is the one of now, by the inode of its `.morpheus/` (as volume/presence.py does).

    After an unmount its path names the bare mount point, which takes every write.
    """
    folder = Path(places.jobs).parent / ".morpheus"
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    inode = folder.stat().st_ino

    def is_there() -> bool:
        try:
            return folder.stat().st_ino == inode
        except OSError:
            return False

    return is_there


def hold_to(places: Places, folder_paths: Any, is_volume_there: Callable[[], bool]) -> None:
    """Holds ComfyUI's ``folder_paths`` to ``places``: its core nodes ask it for every path but a model's.

    A request doesn't show the names that come over a link or inside another value. ComfyUI refuses those itself since
    0.28, so that no node of its own depends on them.
    """
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
        if not is_volume_there():
            raise OSError(VOLUME_GONE.detail)
        return save_path(filename_prefix, output_dir, image_width, image_height)

    folder_paths.get_annotated_filepath = get_annotated_filepath
    folder_paths.exists_annotated_filepath = exists_annotated_filepath
    folder_paths.get_save_image_path = get_save_image_path


def wait_for_packages(environ: Mapping[str, str], boot: int) -> None:
    """Returns once the file MORPHEUS_NODE_GATE is there, if that is set, and lets MORPHEUS_NODE_PACKAGES be imported.

    ComfyUI (nodes.py, init_external_custom_nodes) imports our folder before it lists that of models.yaml's nodes, and
    both after torch. There is no deadline: the boot ends ComfyUI where the packages can't be had. Raises RuntimeError
    when the boot, by its process id the one that started ComfyUI, is gone.
    """
    gate = environ.get("MORPHEUS_NODE_GATE")
    if not gate:
        return
    while not Path(gate).exists():
        if os.getppid() != boot:
            raise RuntimeError("morpheus boot has ended")
        time.sleep(_LOOK_EVERY_S)
    packages = environ.get("MORPHEUS_NODE_PACKAGES")
    if packages:
        # The folder is on sys.path since the start (sitecustomize), where it was missing as long as it was not whole.
        importlib.invalidate_caches()
        site.addsitedir(packages)
