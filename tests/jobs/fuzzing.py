"""What a client may send, what may lie on the volume: any JSON, any bytes for a name, any record."""

import json
from typing import Any, Final

import requests
from hypothesis import strategies as st

from tests.guard.served import node
from tests.jobs.graphs import rescale, rescale_graph

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


def require_answer(answer: requests.Response) -> None:
    """An answer as every client can read it, and none that says that we failed."""
    assert answer.status_code < 500 or answer.status_code in {503, 507}, answer.text
    assert answer.headers["content-type"] == "application/json"
    answer.json()
