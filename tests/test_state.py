"""The state document shows what happens, and ends none of it."""

import logging
from pathlib import Path

import pytest

from morpheus_boot.redact import Redactor
from morpheus_boot.state import (
    BootState,
    Readiness,
    StateBoard,
    VolumeState,
    read_state,
    state_file,
)
from tests.testbed.mounts import fill_up, mounted

STATE = BootState("1.2.3", "w", "e", pid=1, started_at="2026-11-24T00:00:00Z")


def test_a_full_disk_is_told_once_and_the_next_change_that_fits_writes_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mounted(tmp_path / "local", "size=64k") as local:
        board = StateBoard(state_file(local), STATE, Redactor())
        ballast = fill_up(local)
        with caplog.at_level(logging.WARNING):
            board.set_readiness(Readiness.READY)
            board.set_volume(VolumeState("/workspace", None))
        shown = read_state(state_file(local))
        ballast.unlink()
        with board.phase("plan"):
            written = read_state(state_file(local))

    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.text
    assert shown == STATE
    assert written is not None
    assert written.readiness is board.state.readiness is Readiness.READY
    assert written.volume is not None
