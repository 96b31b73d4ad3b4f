"""What the worker makes of ComfyUI's messages about one job."""

from typing import Any

import pytest

from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import Form, JobRecord, Status, now
from morpheus_boot.jobs.run import Run
from tests.comfyui_node.served import node


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("execution_start", {}),
        ("executing", {"node": "load"}),
        ("progress", {"value": 1, "max": 2}),
    ],
)
def test_a_message_that_comes_after_the_end_changes_nothing(
    kind: str, data: dict[str, Any]
) -> None:
    graph = {"load": node("LoadImage", image="x.png")}
    record = JobRecord(
        run="r", worker="w", form=Form.GRAPH, workflow=None, graph=graph, created_at=now()
    )
    run = Run(JobId("j"), record)
    run.begin()
    run.change(status=Status.DONE, made=("x.png",))
    ended = run.record

    run.hear(kind, data)

    assert run.record == ended
