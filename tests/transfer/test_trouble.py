"""An origin that fails is not waited for in silence: what it fails of is said at once, and beside the retries."""

import logging
from pathlib import Path

import pytest

from morpheus_boot.report.progress import Progress
from morpheus_boot.report.state import ModelStage, ModelState
from tests.cache.scene import filling
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import safetensors
from tests.testbed.faults import Gate, ResetAt, Status
from tests.testbed.origin import Origin
from tests.wait import wait_until

PATH = "loras/a.safetensors"


def test_the_first_failure_of_a_question_is_said_at_once_and_once(
    tmp_path: Path, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = model(PATH, origin.serve("/a", safetensors(MIB)))
    origin.misbehave("/a", Status(503), times=3)

    with caplog.at_level(logging.INFO, "morpheus.cache"):
        Worker(tmp_path).fill(wanted)

    (said,) = (line for line in caplog.messages if "trying for" in line)
    assert said.startswith(f"{PATH}: ")
    assert "503" in said


def test_a_transfer_that_retries_reports_what_the_last_attempt_failed_of(
    tmp_path: Path, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", safetensors(4 * MIB)))
    origin.misbehave("/a", ResetAt(MIB), after=1, times=1)
    gate = Gate(MIB)
    origin.misbehave("/a", gate, after=2)
    worker = Worker(tmp_path)

    with filling(worker, wanted):
        gate.wait_reached()
        said = wait_until(lambda: next((s for s in worker.states if s.retries), False))
        gate.open()

    assert isinstance(said, ModelState)
    assert "broke off" in said.detail


@pytest.mark.parametrize("done_bytes", [0, 20])
def test_the_log_says_beside_the_retries_why(
    caplog: pytest.LogCaptureFixture, done_bytes: int
) -> None:
    state = ModelState(
        PATH, ModelStage.FETCHING, done_bytes, 100, retries=14, detail="it can't be reached"
    )

    with caplog.at_level(logging.INFO, "morpheus.cache"):
        Progress()(state)

    assert "14 retries (it can't be reached)" in caplog.text
