"""What FastAPI can't see for its OpenAPI page: the upload's form, which is parsed as it arrives, and the downloads."""

from typing import Any, Final

_TEXT: Final = {"type": "string"}
_BYTES: Final = {"type": "string", "format": "binary"}
_ERROR_BODY: Final = {
    "application/json": {
        "schema": {"type": "object", "required": ["detail"], "properties": {"detail": _TEXT}}
    }
}
# None of ComfyUI's folder names either, which a pattern says badly.
JOB_SCHEMA: Final = {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}
_FOLDER: Final = "[A-Za-z0-9_][A-Za-z0-9_-]{0,63}"
_FORM: Final = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": _BYTES,
        "worker_job_id": {
            "type": "string",
            "description": "Without it the upload gets a job of its own.",
            "pattern": f"^({JOB_SCHEMA['pattern'].strip('^$')})?$",
        },
        "sub_dir": {
            "type": "string",
            "description": "Folders below the job's input; letters of any language are allowed too.",
            "pattern": f"^({_FOLDER}(/{_FOLDER}){{0,15}})?$",
        },
    },
}
_JOB: Final = {
    "name": "job",
    "in": "path",
    "required": True,
    "schema": {"type": "string", **JOB_SCHEMA},
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers ``{"detail": ...}`` that a route may give."""
    told = {
        400: "The request is malformed",
        404: "There is no such file, job or upload",
        408: "The client sends too slowly",
        409: "The name is taken, or the job is full or going; or another number of bytes is here",
        410: "The upload has expired",
        412: "The file is another one, or the version of tus",
        413: "Larger than the limit",
        415: "The body is of another type",
        416: "The range lies outside the file",
        422: "A name or a field is wrong",
        423: "Another request writes the upload",
        500: "The volume fails",
        503: "There is no volume, or it hangs",
        507: "The volume is full",
    }
    return {status: {"description": told[status], "content": _ERROR_BODY} for status in statuses}


UPLOAD_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": _FORM,
                # Without a content type the part is still sent as a file, with a name.
                "encoding": {"file": {"contentType": "application/octet-stream"}},
            }
        },
    }
}


def _header(name: str, told: str, **schema: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": told,
        "schema": {"type": "string", **schema},
    }


_TUS_VERSION: Final = _header("Tus-Resumable", "The protocol's version.", enum=["1.0.0"])
_BYTE_COUNT: Final = "^[0-9]{1,18}$"
UPLOAD_SCHEMA: Final = {"pattern": "^[0-9a-f]{32}$"}
TUS_REQUEST: Final = {"parameters": [_TUS_VERSION]}
TUS_CREATION: Final = {
    "parameters": [
        _TUS_VERSION,
        _header("Upload-Length", "The file's size in bytes.", pattern=_BYTE_COUNT),
        _header(
            "Upload-Metadata",
            "Pairs of a key and its value in Base64, with commas between them: filename, and where they are "
            "wanted worker_job_id and sub_dir, as in the form of /upload.",
        ),
    ]
}
TUS_PATCH: Final = {
    "parameters": [
        _TUS_VERSION,
        _header("Upload-Offset", "How many bytes are here.", pattern=_BYTE_COUNT),
    ],
    "requestBody": {
        "required": True,
        "content": {"application/offset+octet-stream": {"schema": _BYTES}},
    },
}


def download_paths() -> dict[str, Any]:
    """The routes of download_routes.py."""
    inline = {"name": "inline", "in": "query", "schema": {"type": "boolean", "default": False}}
    path = {"name": "path", "in": "path", "required": True, "schema": _TEXT}
    file = {
        "200": _sent("The file", "*/*"),
        "206": _sent("The range asked for", "*/*"),
        "304": {"description": "It has not changed"},
        "412": {"description": "The file is another one"},
        "416": {"description": "The range lies outside the file"},
        **_by_text(errors(404, 422, 500, 503)),
    }
    archive = {"200": _sent("The zip", "application/zip"), **_by_text(errors(404, 422, 500, 503))}
    return {
        "/download/{job}/{path}": {
            method: {
                "summary": "One of the job's outputs",
                "operationId": f"{method}_output",
                "parameters": [_JOB, path, inline],
                "responses": file,
            }
            for method in ("get", "head")
        },
        "/download/{job}": {
            method: {
                "summary": "All of the job's outputs as a zip",
                "operationId": f"{method}_outputs",
                "parameters": [_JOB],
                "responses": archive,
            }
            for method in ("get", "head")
        },
    }


def _sent(told: str, media_type: str) -> dict[str, Any]:
    return {"description": told, "content": {media_type: {"schema": _BYTES}}}


def _by_text(answers: dict[int | str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(status): answer for status, answer in answers.items()}
