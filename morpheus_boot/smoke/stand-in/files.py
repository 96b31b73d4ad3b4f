"""ComfyUI's routes for files: `/upload/image` and `/view`."""

import hashlib
from pathlib import Path

import folder_paths
from aiohttp import web


def add_file_routes(routes: web.RouteTableDef) -> None:
    """Adds both routes."""
    routes.post("/upload/image")(_post_upload)
    routes.get("/view")(_get_view)


async def _post_upload(request: web.Request) -> web.Response:
    post = await request.post()
    kind, subfolder = str(post.get("type", "input")), str(post.get("subfolder", ""))
    image, base = post.get("image"), folder_paths.get_directory_by_type(kind)
    if not isinstance(image, web.FileField) or not image.filename or base is None:
        return web.Response(status=400)
    path = _inside(base, subfolder, image.filename)
    if path is None:
        return web.Response(status=400)
    content = image.file.read()
    path.parent.mkdir(parents=True, exist_ok=True)
    if str(post.get("overwrite", "")) not in {"true", "1"}:
        path = _free_name(path, content)
    path.write_bytes(content)
    return web.json_response({"name": path.name, "subfolder": subfolder, "type": kind})


def _free_name(path: Path, content: bytes) -> Path:
    """``path``, or ``path (n)`` where another picture has that name already."""
    digest, number, free = hashlib.sha256(content).digest(), 0, path
    while free.exists() and hashlib.sha256(free.read_bytes()).digest() != digest:
        number += 1
        free = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return free


async def _get_view(request: web.Request) -> web.StreamResponse:
    name, annotated = folder_paths.annotated_filepath(request.query.get("filename", ""))
    base = annotated or folder_paths.get_directory_by_type(request.query.get("type", "output"))
    if not name or name.startswith("/") or ".." in name or base is None:
        return web.Response(status=400)
    path = _inside(base, request.query.get("subfolder", ""), Path(name).name)
    if path is None:
        return web.Response(status=403)
    if not path.is_file():
        return web.Response(status=404)
    return web.FileResponse(path, headers={"Content-Disposition": f'filename="{path.name}"'})


def _inside(base: str, subfolder: str, name: str) -> Path | None:
    root = Path(base).resolve()
    path = (root / subfolder / name).resolve()
    return path if path.is_relative_to(root) else None
