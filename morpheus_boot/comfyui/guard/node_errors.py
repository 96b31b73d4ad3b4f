"""ComfyUI's own words for a prompt that is refused, which its browser side and other clients show at the node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .prompts import Json, Refusal

_FAILED = "Custom validation failed for node"


def refused(prompt: Json, refusals: Sequence[Refusal], classes: Mapping[str, Any]) -> Json:
    """The body of the 400, as execution.validate_prompt and server.post_prompt make it."""
    errors: dict[str, list[Json]] = {}
    for refusal in refusals:
        errors.setdefault(refusal.node_id, []).append(_error(refusal))
    followers = _followers(prompt)
    return {
        "error": {
            "type": "prompt_outputs_failed_validation",
            "message": "Prompt outputs failed validation",
            "details": "\n".join(
                f"{_FAILED}: {error['details']}" for found in errors.values() for error in found
            ),
            "extra_info": {},
        },
        "node_errors": {
            node_id: {
                "errors": found,
                "dependent_outputs": [
                    below
                    for below in _below(node_id, followers)
                    if _is_output(prompt[below], classes)
                ],
                "class_type": prompt[node_id]["class_type"],
            }
            for node_id, found in errors.items()
        },
    }


def _error(refusal: Refusal) -> Json:
    return {
        "type": "custom_validation_failed",
        "message": _FAILED,
        "details": f"{refusal.input_name} - {refusal.message}",
        "extra_info": {"input_name": refusal.input_name},
    }


def _followers(prompt: Json) -> dict[str, list[str]]:
    """The nodes that take an output of each."""
    followers: dict[str, list[str]] = {}
    for node_id, node in prompt.items():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for value in inputs.values() if isinstance(inputs, dict) else ():
            if isinstance(value, list) and value and isinstance(value[0], str):
                followers.setdefault(value[0], []).append(node_id)
    return followers


def _below(node_id: str, followers: Mapping[str, list[str]]) -> Iterable[str]:
    """The nodes that need ``node_id``, itself included."""
    below, pending = dict.fromkeys([node_id]), [node_id]
    while pending:
        fresh = dict.fromkeys(n for n in followers.get(pending.pop(), ()) if n not in below)
        below |= fresh
        pending += fresh
    return below


def _is_output(node: Json, classes: Mapping[str, Any]) -> bool:
    kind = node.get("class_type")
    node_class = classes.get(kind) if isinstance(kind, str) else None
    return getattr(node_class, "OUTPUT_NODE", False) is True
