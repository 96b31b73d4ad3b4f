"""ComfyUI's `server`: the HTTP routes and the WebSocket, each also below /api."""

import asyncio
import json
import logging
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import folder_paths
import nodes
from aiohttp import web
from comfy.cli_args import args
from comfyui_version import __version__
from execution import Executor, Item, PromptQueue, progress, validate_prompt

Json = dict[str, Any]


class PromptServer:
    """The server; custom nodes reach it as ``PromptServer.instance`` before it listens."""

    instance: ClassVar["PromptServer"]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        PromptServer.instance = self
        self.loop = loop
        self.app = web.Application(client_max_size=round(args.max_upload_size * 1024 * 1024))
        self.routes = web.RouteTableDef()
        self.prompt_queue = PromptQueue(self._queue_changed)
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._messages: asyncio.Queue[tuple[str, Json, str | None]] = asyncio.Queue()
        self._on_prompt: list[Callable[[Json], Json]] = []
        self._number = 0

    def add_on_prompt_handler(self, handler: Callable[[Json], Json]) -> None:
        """``handler`` sees each prompt before it is validated, and answers what is to be used."""
        self._on_prompt.append(handler)

    def send_sync(self, event: str, data: Json, sid: str | None = None) -> None:
        """Sends a message to one client, None: to all; from any thread."""
        self.loop.call_soon_threadsafe(self._messages.put_nowait, (event, data, sid))

    async def start(self) -> None:
        """Adds the routes and listens. Raises SystemExit(1) where a port is taken."""
        self._add_routes()
        executor = Executor(self.prompt_queue, nodes.NODE_CLASS_MAPPINGS, self.send_sync)
        threading.Thread(target=executor.run_forever, daemon=True).start()
        runner = web.AppRunner(self.app, access_log=None)
        await runner.setup()
        logging.info("Starting server\n")
        for address in args.listen.split(","):
            try:
                await web.TCPSite(runner, address, args.port).start()
            except OSError as error:
                logging.error("Port %s is already in use on address %s.", args.port, address)  # noqa: TRY400 - one line, as ComfyUI's
                raise SystemExit(1) from error
            host = f"[{address}]" if ":" in address else address
            logging.info("To see the GUI go to: http://%s:%s", host, args.port)
        await self._publish()

    def _add_routes(self) -> None:
        get, post = self.routes.get, self.routes.post
        get("/")(self._get_root)
        get("/ws")(self._get_ws)
        get("/system_stats")(self._get_system_stats)
        get("/models")(self._get_models)
        get("/models/{folder}")(self._get_models_of)
        get("/object_info")(self._get_object_info)
        get("/object_info/{node_class}")(self._get_object_info)
        get("/prompt")(self._get_prompt)
        post("/prompt")(self._post_prompt)
        get("/queue")(self._get_queue)
        post("/queue")(self._post_queue)
        get("/history")(self._get_history)
        get("/history/{prompt_id}")(self._get_history)
        post("/interrupt")(self._post_interrupt)
        post("/upload/image")(self._post_upload)
        get("/view")(self._get_view)
        prefixed = web.RouteTableDef()
        for route in self.routes:
            if isinstance(route, web.RouteDef):
                prefixed.route(route.method, f"/api{route.path}")(route.handler)
        self.app.add_routes(prefixed)
        self.app.add_routes(self.routes)
        self.app.router.add_get("/internal/folder_paths", self._get_folder_paths)

    async def _publish(self) -> None:
        while True:
            event, data, sid = await self._messages.get()
            targets = list(self._sockets.values()) if sid is None else [self._sockets.get(sid)]
            for socket in targets:
                if socket is not None:
                    await _send(socket, event, data)

    def _queue_info(self) -> Json:
        queue = self.prompt_queue.snapshot()
        return {"exec_info": {"queue_remaining": sum(len(prompts) for prompts in queue.values())}}

    def _queue_changed(self) -> None:
        self.send_sync("status", {"status": self._queue_info()})

    async def _get_root(self, _: web.Request) -> web.Response:
        return web.Response(text="<title>ComfyUI</title>stand-in", content_type="text/html")

    async def _get_ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        self._sockets[sid] = socket
        try:
            await _send(socket, "status", {"status": self._queue_info(), "sid": sid})
            async for _ in socket:
                pass  # clients only announce features here
        finally:
            if self._sockets.get(sid) is socket:
                del self._sockets[sid]
        return socket

    async def _get_system_stats(self, _: web.Request) -> web.Response:
        system = {"os": sys.platform, "comfyui_version": __version__, "argv": sys.argv}
        device = {"name": "stand-in", "type": "cpu", "index": None}
        return web.json_response({"system": system, "devices": [device]})

    async def _get_models(self, _: web.Request) -> web.Response:
        return web.json_response(list(folder_paths.folder_names_and_paths))

    async def _get_models_of(self, request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in folder_paths.folder_names_and_paths:
            return web.Response(status=404)
        return web.json_response(folder_paths.get_filename_list(folder))

    async def _get_folder_paths(self, _: web.Request) -> web.Response:
        known = folder_paths.folder_names_and_paths
        return web.json_response({folder: places for folder, (places, _) in known.items()})

    async def _get_object_info(self, request: web.Request) -> web.Response:
        only = request.match_info.get("node_class")
        known = nodes.NODE_CLASS_MAPPINGS.items()
        return web.json_response(
            {name: _node_info(name, cls) for name, cls in known if only in {None, name}}
        )

    async def _get_prompt(self, _: web.Request) -> web.Response:
        return web.json_response(self._queue_info())

    async def _post_prompt(self, request: web.Request) -> web.Response:
        logging.info("got prompt")
        body = await request.json()
        for handler in self._on_prompt:
            body = handler(body)
        if "prompt" not in body:
            words = dict.fromkeys(("message", "details"), "No prompt provided")
            error = {"type": "no_prompt", **words, "extra_info": {}}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        verdict = validate_prompt(body["prompt"], nodes.NODE_CLASS_MAPPINGS)
        if verdict.error is not None:
            logging.warning("invalid prompt: %s", verdict.error)
            refusal = {"error": verdict.error, "node_errors": verdict.node_errors}
            return web.json_response(refusal, status=400)
        number = body.get("number", -self._number if body.get("front") else self._number)
        self._number += 1
        extra = {**body.get("extra_data", {})}
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        prompt_id = str(body.get("prompt_id") or uuid.uuid4())
        self.prompt_queue.put(Item(number, prompt_id, body["prompt"], extra, verdict.outputs))
        answer = {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        return web.json_response(answer)

    async def _get_queue(self, _: web.Request) -> web.Response:
        return web.json_response(self.prompt_queue.snapshot())

    async def _post_queue(self, request: web.Request) -> web.Response:
        self.prompt_queue.delete(await request.json())
        return web.Response()

    async def _get_history(self, request: web.Request) -> web.Response:
        only = request.match_info.get("prompt_id")
        history = self.prompt_queue.history.items()
        return web.json_response({key: one for key, one in history if only in {None, key}})

    async def _post_interrupt(self, request: web.Request) -> web.Response:
        body = await request.text()
        wanted = json.loads(body).get("prompt_id") if body else None
        running = self.prompt_queue.running
        if wanted is None or (running is not None and running.prompt_id == wanted):
            progress.interruption.set()
        return web.Response()

    async def _post_upload(self, request: web.Request) -> web.Response:
        post = await request.post()
        kind, subfolder = str(post.get("type", "input")), str(post.get("subfolder", ""))
        image, base = post.get("image"), folder_paths.get_directory_by_type(kind)
        if not isinstance(image, web.FileField) or not image.filename or base is None:
            return web.Response(status=400)
        path = Path(base, subfolder, image.filename)
        if not folder_paths.is_within(base, str(path)):
            return web.Response(status=400)
        overwrite = str(post.get("overwrite", "")) in {"true", "1"}
        name = _written(path, image.file.read(), overwrite=overwrite)
        return web.json_response({"name": name, "subfolder": subfolder, "type": kind})

    async def _get_view(self, request: web.Request) -> web.StreamResponse:
        name, annotated = folder_paths.annotated_filepath(request.query.get("filename", ""))
        base = annotated or folder_paths.get_directory_by_type(request.query.get("type", "output"))
        if not name or name.startswith("/") or ".." in name or base is None:
            return web.Response(status=400)
        path = Path(base, request.query.get("subfolder", ""), Path(name).name)
        if not folder_paths.is_within(base, str(path)):
            return web.Response(status=403)
        return web.FileResponse(path, headers={"Content-Disposition": f'filename="{path.name}"'})


def _written(path: Path, content: bytes, *, overwrite: bool) -> str:
    """The name under which ``content`` is kept: ``path (n)`` where another picture has that name already."""
    first, number = path, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    while not overwrite and path.exists() and path.read_bytes() != content:
        number += 1
        path = first.with_name(f"{first.stem} ({number}){first.suffix}")
    path.write_bytes(content)
    return path.name


def _node_info(name: str, cls: Any) -> Json:  # noqa: ANN401 - a node class, ours or foreign
    inputs = cls.INPUT_TYPES()
    return {
        "input": inputs,
        "input_order": {section: list(names) for section, names in inputs.items()},
        "output": list(cls.RETURN_TYPES),
        "name": name,
        "display_name": name,
        "category": getattr(cls, "CATEGORY", "sd"),
        "output_node": getattr(cls, "OUTPUT_NODE", False),
    }


async def _send(socket: web.WebSocketResponse, event: str, data: Json) -> None:
    try:
        await socket.send_json({"type": event, "data": data})
    except ConnectionError as error:
        logging.warning("send error: %s", error)
