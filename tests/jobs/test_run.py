"""What the worker makes of ComfyUI's messages about one job."""

from typing import Any

import pytest

from morpheus_boot.jobs.following import Run
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import Form, JobRecord, Status, now
from tests.guard.served import node


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


def test_a_node_whose_entry_was_not_heard_is_known_by_its_steps() -> None:
    graph = {"load": node("LoadImage", image="x.png"), "sample": node("KSampler")}
    record = JobRecord(
        run="r", worker="w", form=Form.GRAPH, workflow=None, graph=graph, created_at=now()
    )
    run = Run(JobId("j"), record)

    run.hear("progress", {"node": "sample", "value": 3, "max": 20})

    assert run.record.status is Status.RUNNING
    assert run.record.progress is not None
    assert run.record.progress.class_type == "KSampler"
    assert (run.record.progress.step, run.record.progress.steps) == (3, 20)
