"""The state document shows what happens, and ends none of it."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from morpheus_boot.config.redact import Redactor, Secret
from morpheus_boot.report.state import (
    BootState,
    ModelStage,
    ModelState,
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


def test_models_that_are_put_together_keep_the_places_of_those_that_were_there(
    tmp_path: Path,
) -> None:
    board = StateBoard(state_file(tmp_path), STATE, Redactor([Secret("s3cret")]))
    first = [ModelState(name, ModelStage.MISSING) for name in ("loras/a", "loras/b")]

    board.put_models(first)
    board.put_models(
        [
            ModelState("loras/c", ModelStage.PRESENT),
            replace(first[0], detail="asked with s3cret"),
        ]
    )

    written = read_state(state_file(tmp_path))
    assert written is not None
    assert [(m.path, m.detail) for m in written.models] == [
        ("loras/a", "asked with [secret]"),
        ("loras/b", ""),
        ("loras/c", ""),
    ]
