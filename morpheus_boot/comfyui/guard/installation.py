"""Puts our middleware in front of the ComfyUI that imports us."""

from __future__ import annotations

import importlib
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .door import Door  # noqa: TID252 - found by its folder
from .guard import guard  # noqa: TID252 - found by its folder
from .middleware import ComfyUI, make_middleware, sandbox_documents  # noqa: TID252 - found by its folder
from .paths import Places  # noqa: TID252 - found by its folder
from .settings import Settings, read_settings  # noqa: TID252 - found by its folder

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Middleware


def install(environ: Mapping[str, str]) -> None:
    """Guards the running ComfyUI before it listens. Raises whatever stands in the way."""
    settings = read_settings(environ)
    folder_paths = importlib.import_module("folder_paths")
    server = importlib.import_module("server").PromptServer.instance
    places = _places(settings, folder_paths)
    guard(folder_paths, places)
    comfyui = ComfyUI(
        places,
        settings.worker,
        importlib.import_module("nodes").NODE_CLASS_MAPPINGS,
        _replacing(server),
    )
    _put_first(server.app, make_middleware(comfyui, Door(settings.token_digest)))
    server.app.on_response_prepare.append(sandbox_documents)


def _places(settings: Settings, folder_paths: Any) -> Places:  # noqa: ANN401 - ComfyUI's module
    output = posixpath.abspath(folder_paths.get_output_directory())
    if output != settings.jobs:
        raise ValueError(f"ComfyUI's output directory is {output}, not {settings.jobs}")
    elsewhere = [posixpath.normpath(f"{mount}/jobs") for mount in settings.mounts]
    return Places(
        jobs=output,
        input=posixpath.abspath(folder_paths.get_input_directory()),
        temp=posixpath.abspath(folder_paths.get_temp_directory()),
        other_jobs=tuple(jobs for jobs in elsewhere if jobs != output),
    )


def _replacing(server: Any) -> Any:  # noqa: ANN401 - ComfyUI's server; the answer is a method of it
    manager = getattr(server, "node_replace_manager", None)
    return manager.apply_replacements if manager is not None else lambda _prompt: None


def _put_first(app: web.Application, middleware: Middleware) -> None:
    """Now, and again when all custom nodes are imported: each may put its own before ours."""
    app.middlewares.insert(0, middleware)

    async def stay_first(app: web.Application) -> None:
        app.middlewares[:] = [middleware, *(m for m in app.middlewares if m is not middleware)]

    app.on_startup.append(stay_first)
