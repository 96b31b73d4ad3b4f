"""Names of a job's own pictures in its graph."""

from collections.abc import Mapping
from typing import Any

from morpheus_boot.jobs.templates import Graph


def name_images(graph: Graph, names: Mapping[str, str]) -> Graph:
    """``graph`` with every input that is one of ``names`` replaced by what that stands for."""
    return {
        node_id: {
            **node,
            "inputs": {name: _named(value, names) for name, value in node["inputs"].items()},
        }
        for node_id, node in graph.items()
    }


def _named(value: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - any JSON
    return names.get(value, value) if isinstance(value, str) else value
