"""ComfyUI's `server`: the HTTP routes and the WebSocket, each also below /api."""

import asyncio
import contextlib
import logging
import os
import threading
import uuid
from pathlib import Path
from typing import Any, ClassVar

import folder_paths
from aiohttp import web
from comfy.cli_args import args
from comfyui_version import __version__
from execution import Item, PromptQueue, Refused, validate_prompt

Json = dict[str, Any]


class PromptServer:
    """The server; custom nodes reach it as ``PromptServer.instance`` before it listens."""

    instance: ClassVar["PromptServer"]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        PromptServer.instance = self
        self.loop = loop
        self.app = web.Application(client_max_size=100 * 1024 * 1024)
        self.prompt_queue = PromptQueue(self.send_sync)
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._messages: asyncio.Queue[tuple[str, Json, str | None]] = asyncio.Queue()
        self._number = 0

    def send_sync(self, event: str, data: Json, sid: str | None = None) -> None:
        """Sends a message to one client; from any thread."""
        self.loop.call_soon_threadsafe(self._messages.put_nowait, (event, data, sid))

    async def start(self) -> None:
        """Adds the routes and listens. Raises SystemExit(1) where the port is taken."""
        for start in ("", "/api"):
            for method, path, handler in (
                ("GET", "/ws", self._get_ws),
                ("GET", "/system_stats", _get_system_stats),
                ("GET", "/models", _get_models),
                ("GET", "/models/{folder}", _get_models_of),
                ("GET", "/prompt", self._get_prompt),
                ("POST", "/prompt", self._post_prompt),
                ("GET", "/queue", self._get_queue),
                ("POST", "/queue", self._post_queue),
                ("GET", "/history", self._get_history),
                ("GET", "/history/{prompt_id}", self._get_history),
                ("POST", "/interrupt", self._post_interrupt),
                ("POST", "/upload/image", _post_upload),
                ("GET", "/view", _get_view),
            ):
                self.app.router.add_route(method, start + path, handler)
        self.app.router.add_get("/", _get_root)
        self.app.router.add_get("/internal/folder_paths", _get_folder_paths)
        threading.Thread(target=self.prompt_queue.run_forever, daemon=True).start()
        runner = web.AppRunner(self.app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, args.listen, args.port).start()
        except OSError as error:
            logging.error("Port %s is already in use on address %s.", args.port, args.listen)  # noqa: TRY400 - one line, as ComfyUI's
            raise SystemExit(1) from error
        logging.info("To see the GUI go to: http://%s:%s", args.listen, args.port)
        while True:
            event, data, sid = await self._messages.get()
            for name, socket in list(self._sockets.items()):
                if sid in {None, name} and not socket.closed:
                    # A client that died meanwhile costs nobody else anything.
                    with contextlib.suppress(ConnectionError):
                        await socket.send_json({"type": event, "data": data})

    def _exec_info(self) -> Json:
        queue = self.prompt_queue
        remaining = len(queue.pending) + (queue.running is not None)
        return {"exec_info": {"queue_remaining": remaining}}

    async def _get_ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        self._sockets[sid] = socket
        status = {"status": self._exec_info(), "sid": sid}
        await socket.send_json({"type": "status", "data": status})
        async for _ in socket:
            pass  # clients only announce features here
        if self._sockets.get(sid) is socket:
            del self._sockets[sid]
        return socket

    async def _get_prompt(self, _: web.Request) -> web.Response:
        return web.json_response(self._exec_info())

    async def _post_prompt(self, request: web.Request) -> web.Response:
        logging.info("got prompt")
        body = await request.json()
        try:
            outputs, node_errors = validate_prompt(body["prompt"])
        except Refused as refused:
            return web.json_response(refused.body, status=400)
        number, prompt_id = self._number, str(body.get("prompt_id") or uuid.uuid4())
        self._number += 1
        extra = {**body.get("extra_data", {}), "client_id": body.get("client_id")}
        self.prompt_queue.put(Item(number, prompt_id, body["prompt"], extra, outputs))
        answer = {"prompt_id": prompt_id, "number": number, "node_errors": node_errors}
        return web.json_response(answer)

    async def _get_queue(self, _: web.Request) -> web.Response:
        running, waiting, _ended = self.prompt_queue.snapshot()
        shown = {"queue_running": running, "queue_pending": waiting}
        return web.json_response({k: [item.as_json() for item in v] for k, v in shown.items()})

    async def _post_queue(self, request: web.Request) -> web.Response:
        deleted = (await request.json()).get("delete", [])
        self.prompt_queue.keep(lambda item: item.prompt_id not in deleted)
        return web.Response()

    async def _get_history(self, request: web.Request) -> web.Response:
        wanted = request.match_info.get("prompt_id")
        _running, _waiting, history = self.prompt_queue.snapshot()
        return web.json_response({k: v for k, v in history.items() if wanted in {None, k}})

    async def _post_interrupt(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        self.prompt_queue.interrupt(body.get("prompt_id"))
        return web.Response()


async def _get_root(_: web.Request) -> web.Response:
    return web.Response(text="<title>ComfyUI</title>stand-in", content_type="text/html")


async def _get_system_stats(_: web.Request) -> web.Response:
    system = {"comfyui_version": __version__, "pytorch_version": "none"}
    return web.json_response({"system": system, "devices": []})


async def _get_models(_: web.Request) -> web.Response:
    return web.json_response(list(folder_paths.folder_names_and_paths))


async def _get_models_of(request: web.Request) -> web.Response:
    folder = request.match_info["folder"]
    if folder not in folder_paths.folder_names_and_paths:
        return web.Response(status=404)
    return web.json_response(folder_paths.get_filename_list(folder))


async def _get_folder_paths(_: web.Request) -> web.Response:
    known = folder_paths.folder_names_and_paths
    return web.json_response({folder: places for folder, (places, _) in known.items()})


async def _post_upload(request: web.Request) -> web.Response:
    post = await request.post()
    kind, subfolder = str(post.get("type", "input")), str(post.get("subfolder", ""))
    image = post.get("image")
    if not isinstance(image, web.FileField) or kind not in folder_paths.directories:
        return web.Response(status=400)
    path = Path(folder_paths.directories[kind], subfolder, image.filename)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image.file.read())
    return web.json_response({"name": path.name, "subfolder": subfolder, "type": kind})


async def _get_view(request: web.Request) -> web.StreamResponse:
    name, annotated = folder_paths.annotated_filepath(request.query.get("filename", ""))
    kind = request.query.get("type", "output")
    base = annotated or folder_paths.directories.get(kind)
    if not name or name.startswith("/") or ".." in name or base is None:
        return web.Response(status=400)
    path = os.path.join(base, request.query.get("subfolder", ""), os.path.basename(name))
    return web.FileResponse(path) if os.path.isfile(path) else web.Response(status=404)
