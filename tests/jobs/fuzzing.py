"""What a client may send, what may lie on the volume: any JSON, any bytes for a name, any record."""

import json
import os
import secrets
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import requests
from hypothesis import strategies as st

from tests.guard.served import node
from tests.jobs.graphs import rescale, rescale_graph
from tests.jobs.workers import Worker

# Not only what JSON allows: Python's writer has lone surrogates, NaN and Infinity, as clients do.
_TEXTS: Final = st.text(st.characters(codec=None), max_size=20)
_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)
_SAVE: Final = node("SaveImage", images=["make", 0], filename_prefix="x")


def _nested(value: object, depth: int) -> object:
    for _ in range(depth):
        value = [value]
    return value


def _graph(inputs: dict[str, Any], more: Any) -> dict[str, Any]:
    make = node("EmptyImage", width=8, height=8, batch_size=1, color=0)
    # In an object, so that nothing is a link to another node.
    make["inputs"]["more"] = inputs
    return {"workflow": {"make": {**make, "_meta": more}, "save": _SAVE}}


_DEEP: Final = st.builds(_nested, _JSON, st.integers(0, 300))
_GRAPHS: Final = st.builds(_graph, st.dictionaries(_TEXTS, _JSON, max_size=3), _JSON | _DEEP)
_CHANGED: Final = st.builds(
    lambda base, name, value: {**base, name: value},
    st.sampled_from([rescale("j", "x.png"), rescale_graph("j")]),
    st.sampled_from(["workflow", "images", "worker_job_id", "workflow_name", "image", "width"])
    | _TEXTS,
    _JSON | _DEEP,
)
BODIES: Final = (_JSON | _DEEP | _GRAPHS | _CHANGED).map(lambda body: json.dumps(body).encode())
# What Linux takes for a name, UTF-8 or not.
NAMES: Final = st.binary(min_size=1, max_size=60).filter(
    lambda name: name not in {b".", b".."} and not {b"/", b"\0"} & {bytes([c]) for c in name}
)
RECORDS: Final = st.binary(max_size=200) | (
    _JSON
    | st.fixed_dictionaries(
        {},
        optional={
            "run": st.just("r") | _JSON,
            "worker": st.sampled_from(["w", "../../x", "/etc"]) | _JSON,
            "form": st.sampled_from(["morpheus", "worker-comfyui"]),
            "workflow": st.none(),
            "graph": st.just({}) | _JSON,
            "created_at": st.just("") | _JSON,
            "status": st.sampled_from(["queued", "running", "done", "failed"]) | _JSON,
            "made": st.lists(
                st.sampled_from(["a.png", "../../../proc/self/environ"]) | _TEXTS, max_size=3
            ),
            "error": _JSON,
            "node_errors": _JSON,
        },
    )
).map(lambda record: json.dumps(record).encode())


def check_body(worker: Worker, body: bytes) -> None:
    """Posts it: it is taken, or refused by name."""
    answer = worker.files.post("/jobs", data=body)

    _require_json(answer)
    assert answer.status_code in {202, 400, 409, 422}, answer.text


def check_name(worker: Worker, name: bytes) -> None:
    """A file of that name is listed, and downloaded as it is shown."""
    job = f"names-{secrets.token_hex(4)}"
    folder = worker.volume.job(job) / "output"
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"content")

    [file] = worker.job(job)["files"]

    answer = worker.files.get(f"/download/{job}/{quote(file['name'])}")
    assert (answer.status_code, answer.content) == (200, b"content")
    assert worker.files.post(f"/cleanup/{job}").status_code == 200


def check_record(worker: Worker, record: bytes) -> None:
    """A job with that record is answered, and goes when it is cleaned up."""
    job = f"record-{secrets.token_hex(4)}"
    worker.volume.job_record(job).write_bytes(record)

    seen = worker.files.get(f"/jobs/{job}")

    _require_json(seen)
    assert "environ" not in seen.text
    _require_json(worker.files.post(f"/jobs/{job}/cancel"))
    assert worker.files.post(f"/cleanup/{job}").status_code == 200
    assert not worker.volume.job_record(job).exists()


def _require_json(answer: requests.Response) -> None:
    """An answer as every client can read it, and none that says that we failed."""
    assert answer.status_code < 500 or answer.status_code in {503, 507}, answer.text
    assert answer.headers["content-type"] == "application/json"
    answer.json()
