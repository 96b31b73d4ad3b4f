"""Whatever a client sends, the answers are as the server's own OpenAPI declares them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fileserver.serving import FileServer
from tests.fileserver.tus import create, metadata

EXAMPLES: Final = 25
GRAPH: Final = {"1": {"class_type": "SaveImage", "inputs": {}}}
# What is there before each operation's turn.
THERE: Final = {"job": "j", "path": "a.png"}
KINDS: Final[dict[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "null": type(None),
}

TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
# A dot alone and two of them are test_traversal.py's: a client like this one takes them out of a URL.
NAMES: Final = st.sampled_from(
    ["j", "a.png", "checkpoints", "nobody", "a\0b", "..a", " ", "ü" * 128]
) | TEXT.filter(lambda text: text not in {".", ".."})
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FIELDS: Final = st.dictionaries(
    st.sampled_from(["worker_job_id", "sub_dir", "workflow_name", "workflow", "images", "x"]),
    NAMES | JSON | st.just(GRAPH),
    max_size=3,
)
BODIES: Final[dict[str, SearchStrategy[dict[str, Any]]]] = {
    "application/json": (
        st.just({"json": {"workflow": GRAPH}})
        | (FIELDS | JSON).map(lambda body: {"data": json.dumps(body)})
        | st.binary(max_size=50).map(lambda body: {"data": body})
    ),
    "application/offset+octet-stream": st.builds(
        lambda content, kind: {"data": content, "headers": kind},
        st.binary(max_size=3),
        st.sampled_from([{"Content-Type": "application/offset+octet-stream"}, {}]),
    ),
    "multipart/form-data": (
        st.just({"files": {"file": ("a.png", b"picture")}})
        | st.builds(
            lambda name, content, fields: {"files": {"file": (name, content)}, "data": fields},
            NAMES,
            st.binary(max_size=50),
            FIELDS,
        )
        | st.binary(max_size=50).map(lambda body: {"data": body})
    ),
}
# Those that an operation declares itself.
DECLARED: Final = {
    "Tus-Resumable": st.sampled_from(["1.0.0", "1.0.0", "0.2.2"]),
    "Upload-Length": st.sampled_from(["0", "9", "-1", "9" * 18, "x"]),
    "Upload-Metadata": st.sampled_from([metadata(filename="a.png"), "filename", "x y", "a,,b"]),
    "Upload-Offset": st.sampled_from(["0", "0", "1", "x"]),
}
HEADERS: Final = st.dictionaries(
    st.sampled_from(["Range", "If-None-Match", "If-Range", "If-Modified-Since"]),
    st.sampled_from(["bytes=0-1", "bytes=9-", "bytes=-0", "bytes=x", "*", '"x"', "yesterday"]),
    max_size=2,
)


@dataclass(frozen=True)
class Operation:
    """One method of one path, as the document has it."""

    method: str
    path: str
    declared: dict[str, Any]

    def requests(self, there: dict[str, str]) -> SearchStrategy[tuple[str, dict[str, Any]]]:
        """A target, and what requests is given with it; some of them of what is ``there``."""
        names = {p["name"]: p for p in self.declared.get("parameters", ())}
        places = {
            # A slash begins a new part of the path, which only the last parameter may have.
            name: NAMES if name == "path" else NAMES.filter(lambda text: "/" not in text)
            for name, parameter in names.items()
            if parameter["in"] == "path"
        }
        queries = {name: NAMES for name, p in names.items() if p["in"] == "query"}
        told = {name: DECLARED[name.title()] for name, p in names.items() if p["in"] == "header"}
        [media_type] = self.declared.get("requestBody", {}).get("content", {None: None})
        return st.tuples(
            (st.just(there) | st.fixed_dictionaries(places)).map(self._target),
            st.builds(
                lambda query, headers, told, body: {
                    "params": query,
                    **body,
                    "headers": {**headers, **told, **body.get("headers", {})},
                },
                st.fixed_dictionaries({}, optional=queries),
                HEADERS,
                st.fixed_dictionaries(told) | st.fixed_dictionaries({}, optional=told),
                BODIES[media_type] if media_type else st.just({}),
            ),
        )

    def _target(self, places: dict[str, str]) -> str:
        return self.path.format(**{name: quote(text, safe="") for name, text in places.items()})


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, declared in methods.items():
            yield Operation(method, path, declared)


def fits(value: Any, schema: dict[str, Any], named: dict[str, Any]) -> bool:
    """Whether ``value`` is what ``schema`` says, of the words that FastAPI uses for answers."""
    if "$ref" in schema:
        return fits(value, named[schema["$ref"].rpartition("/")[2]], named)
    if "anyOf" in schema:
        return any(fits(value, one, named) for one in schema["anyOf"])
    if not isinstance(value, KINDS[schema.get("type", "object")]):
        return False
    if isinstance(value, list):
        return all(fits(one, schema["items"], named) for one in value)
    if isinstance(value, dict):
        parts = schema.get("properties", {})
        return {*schema.get("required", ())} <= {*value} and all(
            fits(value[name], part, named) for name, part in parts.items() if name in value
        )
    return value in schema.get("enum", [value])


def check(answer: requests.Response, operation: Operation, named: dict[str, Any]) -> None:
    """Raises AssertionError where ``answer`` is not one that ``operation`` declares."""
    responses = operation.declared["responses"]
    said = f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:300]}"
    status = str(answer.status_code)
    declared = responses.get(status, responses.get(f"{status[0]}XX"))
    assert declared is not None, said
    content = declared.get("content", {})
    if "application/json" in content and operation.method != "head":
        assert answer.headers["Content-Type"] == "application/json", said
        assert fits(answer.json(), content["application/json"]["schema"], named), said


def test_whatever_is_sent_is_answered_as_it_is_declared(start: Callable[..., FileServer]) -> None:
    server = start(env={"MORPHEUS_DOCS": "1", "MORPHEUS_WORKER": "w"})
    assert server.get("/docs").status_code == 200
    document = server.get("/openapi.json").json()
    assert {"/upload", "/uploads", "/download/{job}/{path}", "/jobs/{job}"} <= set(
        document["paths"]
    )
    for operation in operations(document):
        server.output(THERE["job"], THERE["path"], b"picture")
        server.post("/jobs", json={"workflow": GRAPH, "worker_job_id": THERE["job"]})
        there = {**THERE, "upload": create(server, 9).rpartition("/")[2]}
        seen = answers_to(server, operation, there, document["components"]["schemas"])
        assert seen & {200, 201, 202, 204}, (
            f"{operation.method} {operation.path} never does its work"
        )
        assert 500 not in seen
    assert "ERROR" not in server.log


def answers_to(
    server: FileServer, operation: Operation, there: dict[str, str], named: dict[str, Any]
) -> set[int]:
    """Sends requests of all kinds, checks what comes, and returns the statuses."""
    seen = set()

    # As the document goes, so do the requests: a run that fails here fails everywhere.
    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None)
    @given(operation.requests(there))
    def send(request: tuple[str, dict[str, Any]]) -> None:
        target, given = request
        answer = server.session.request(operation.method, server.url + target, timeout=30, **given)
        seen.add(answer.status_code)
        check(answer, operation, named)

    send()
    return seen
