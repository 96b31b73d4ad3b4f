"""The one middleware in front of ComfyUI's server: the token first, then what a request may name."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from .door import COOKIE, DETAILS, FORM_HEADERS, UNAUTHORIZED, Door, form
from .node_errors import refused
from .paths import Places, Sender, is_job_id
from .prompts import Destination, Json, Refusal, decide
from .routes import (
    CLOSED,
    VOLUME_GONE,
    Denial,
    refuse_preview,
    refuse_upload,
    refuse_view,
)

if TYPE_CHECKING:  # older versions of aiohttp don't have these names
    from aiohttp.typedefs import Handler, Middleware
# The runner of jobs (jobs/comfyui.py) says here whose files the prompt makes.
_JOB_HEADER = "X-Morpheus-Job"
_FRESH_BYTES = 8
_UPLOADS = frozenset({"/upload/image", "/upload/mask"})
_STORES = _UPLOADS | {"/prompt"}
# What a browser runs scripts of: SVG and XHTML, too.
_DOCUMENTS = ("html", "xml", "xsl")


@dataclass(frozen=True)
class ComfyUI:
    """What the middleware needs of the ComfyUI that it guards.

    ``replace_nodes`` puts, in place, the nodes of today for those of yesterday, as ComfyUI does itself after us.
    """

    places: Places
    worker: str
    classes: Mapping[str, Any]
    replace_nodes: Callable[[Json], object]
    is_volume_there: Callable[[], bool]


def make_middleware(comfyui: ComfyUI, door: Door) -> Middleware:
    """The middleware: the door first, then what ComfyUI may be asked for, then what it answers."""

    @web.middleware
    async def morpheus(request: web.Request, handler: Handler) -> web.StreamResponse:
        cors = door.cors_headers(request.headers.get("Origin", ""))
        if (
            cors
            and request.method == "OPTIONS"
            and "Access-Control-Request-Method" in request.headers
        ):
            return web.Response(status=204, headers=cors)
        refusal = _at_the_door(request, door) or await _refuse(request, comfyui)
        answer = await handler(request) if refusal is None else refusal
        if not answer.prepared:
            answer.headers.update(cors)
        return _in_utf8(answer) if _route(request) == "/prompt" else answer

    return morpheus


def _at_the_door(request: web.Request, door: Door) -> web.Response | None:
    """None: come in."""
    is_login = request.method == "GET" and request.path == "/"
    given = request.query.get("token") if is_login else None
    if given is not None and door.is_right(given.encode(errors="replace")):
        return _with_cookie(request, given)
    refusal = door.refusal(request.method, request.raw_headers)
    if refusal is None:
        return None
    if refusal != UNAUTHORIZED:
        return _denied(Denial(refusal, DETAILS[refusal]))
    headers = {"WWW-Authenticate": "Bearer"}
    if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
        page = form("get", wrong=bool(given))
        headers.update(FORM_HEADERS)
        return web.Response(text=page, content_type="text/html", status=401, headers=headers)
    return web.json_response({"detail": DETAILS[refusal]}, status=refusal, headers=headers)


def _with_cookie(request: web.Request, token: str) -> web.Response:
    headers = {"Location": "/", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    response = web.Response(status=303, headers=headers)
    response.set_cookie(
        COOKIE,
        quote(token, safe=""),
        httponly=True,
        samesite="Strict",
        # RunPod's proxy ends TLS before us, and says so.
        secure=request.headers.get("X-Forwarded-Proto", request.scheme) == "https",
    )
    return response


def _route(request: web.Request) -> str:
    """The route that will answer, as ComfyUI wrote it, whatever the request's own path looks like."""
    resource = request.match_info.route.resource
    written: str = "" if resource is None else resource.canonical
    # ComfyUI has each of them below /api, too. But for its assets: /assets are its page's.
    return written if written.startswith("/api/assets") else written.removeprefix("/api")


async def _refuse(request: web.Request, comfyui: ComfyUI) -> web.Response | None:
    """The answer to what may not be; None: ComfyUI answers, the prompt put right."""
    route, denial = _route(request), None
    if route in _STORES and request.method == "POST" and not comfyui.is_volume_there():
        return _denied(VOLUME_GONE)
    if route == "/prompt" and request.method == "POST":
        return await _refuse_prompt(request, comfyui)
    if route.startswith("/api/assets"):
        denial = CLOSED
    elif route == "/view":
        denial = refuse_view(request.query, comfyui.places)
    elif route in _UPLOADS:
        denial = await _refuse_upload(request, comfyui.places)
    elif route.startswith("/experiment/models/preview/"):
        named = request.match_info
        denial = refuse_preview(named.get("folder", ""), named.get("filename", ""))
    return None if denial is None else _denied(denial)


def _denied(denial: Denial) -> web.Response:
    return web.json_response({"detail": denial.detail}, status=denial.status)


async def _refuse_upload(request: web.Request, places: Places) -> Denial | None:
    fields = await request.post()
    image = fields.get("image")
    kind, subfolder = fields.get("type", "input"), fields.get("subfolder", "")
    if not (
        isinstance(image, web.FileField) and isinstance(kind, str) and isinstance(subfolder, str)
    ):
        return None
    denial = refuse_upload(kind, subfolder, image.filename, places)
    return denial or _refuse_original(fields.get("original_ref"), places)


def _refuse_original(reference: object, places: Places) -> Denial | None:
    """The picture that `/upload/mask` puts the mask on is read as `/view` reads it."""
    try:
        asked = json.loads(reference) if isinstance(reference, str) else None
    except ValueError:
        return None
    if not isinstance(asked, dict):
        return None
    return refuse_view({k: v for k, v in asked.items() if isinstance(v, str)}, places)


async def _refuse_prompt(request: web.Request, comfyui: ComfyUI) -> web.Response | None:
    try:
        return await _put_right(request, comfyui)
    except RecursionError:
        return _denied(Denial(400, "prompt: it is nested too deeply"))


async def _put_right(request: web.Request, comfyui: ComfyUI) -> web.Response | None:
    """Puts the prompt right in the request itself; the answer where that can't be. Raises RecursionError."""
    try:
        body = await request.json()
    except ValueError:
        return None
    prompt = body.get("prompt") if isinstance(body, dict) else None
    if not isinstance(prompt, dict):
        return None
    job = request.headers.get(_JOB_HEADER)
    if job is not None and not is_job_id(job):
        return _denied(Denial(400, f"{_JOB_HEADER}: it is no job id"))
    sender = Sender(comfyui.worker) if job is None else Sender(job, is_job=True)
    fresh = None if job is None else secrets.token_hex(_FRESH_BYTES)
    comfyui.replace_nodes(prompt)
    decision = decide(prompt, comfyui.classes, comfyui.places, sender, fresh)
    refusals = decision.refusals or _make_folders(decision.destinations, comfyui.places)
    if refusals:
        return web.json_response(refused(prompt, refusals, comfyui.classes), status=400)
    if decision.prompt != prompt:
        await _replace_body(request, {**body, "prompt": decision.prompt})
    return None


def _make_folders(destinations: Sequence[Destination], places: Places) -> Sequence[Refusal]:
    """Makes what the nodes write into, below temp as well: LossGraphNode writes there without making it.

    The first that can't be made is a refusal.
    """
    for folder, destination in {one.folder: one for one in destinations}.items():
        # ComfyUI replaces %date% and its like, and makes such a folder itself.
        literal = folder.partition("%")[0].rpartition("/")[0] if "%" in folder else folder
        try:
            Path(places.jobs, literal).mkdir(parents=True, exist_ok=True)
            Path(places.temp, folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"its folder can't be made: {error.strerror or type(error).__name__}"
            return (Refusal(destination.node_id, destination.input_name, message),)
    return ()


def _in_utf8(answer: web.StreamResponse) -> web.StreamResponse:
    """``answer`` without lone surrogates, which stand for the bytes of a file name that is no UTF-8.

    JSON may spell them, but whoever reads it can't write them down.
    """
    if (
        isinstance(answer, web.Response)
        and answer.content_type == "application/json"
        and answer.text
    ):
        said = json.dumps(json.loads(answer.text), ensure_ascii=False)
        answer.body = said.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return answer


async def sandbox_documents(request: web.Request, answer: web.StreamResponse) -> None:
    """Keeps scripts in a file of somebody's from running as a page of ComfyUI's; a signal of aiohttp's application."""
    if _route(request) == "/view" or _route(request).startswith("/userdata/"):
        answer.headers["X-Content-Type-Options"] = "nosniff"
        if any(kind in answer.content_type for kind in _DOCUMENTS):
            answer.headers["Content-Security-Policy"] = "sandbox"


async def _replace_body(request: web.Request, body: Json) -> None:
    """Puts ``body`` in the place of what was sent. Raises RuntimeError where this aiohttp does not let it."""
    content = json.dumps(body).encode(request.charset or "utf-8")
    # The bytes that were read are kept there for whoever reads again (aiohttp 3); it offers no other way.
    request._read_bytes = content  # noqa: SLF001
    if await request.read() != content:
        raise RuntimeError("the prompt can't be put right with this version of aiohttp")
