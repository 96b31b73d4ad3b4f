"""Bars on a terminal, lines elsewhere."""

import io
import logging

from morpheus_boot.config.redact import Redactor
from morpheus_boot.report.bars import shown_on
from morpheus_boot.report.log import set_up_log
from morpheus_boot.report.state import ModelStage, ModelState
from tests.wait import wait_until

FETCHING = ModelState("loras/a.safetensors", ModelStage.FETCHING, 50, 100, retries=2)
PRESENT = ModelState("loras/a.safetensors", ModelStage.PRESENT, 100, 100)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_than_on_a_terminal_everything_is_a_line() -> None:
    lines: list[ModelState] = []
    moved: list[ModelState] = []

    with shown_on(io.StringIO(), lines.append, moved.append) as report:
        report(FETCHING)
        report(PRESENT)

    assert (lines, moved) == ([FETCHING, PRESENT], [])


def test_on_a_terminal_progress_is_a_bar_and_all_else_a_line() -> None:
    terminal = Terminal()
    lines: list[ModelState] = []
    moved: list[ModelState] = []
    set_up_log("text", 0, Redactor(), terminal)

    with shown_on(terminal, lines.append, moved.append) as report:
        report(FETCHING)
        wait_until(lambda: "2 retries" in terminal.getvalue())
        logging.getLogger("morpheus.cache").info("a [line] of the log")
        report(PRESENT)
    logging.getLogger("morpheus.cache").info("afterwards")

    assert (lines, moved) == ([PRESENT], [FETCHING])
    shown = terminal.getvalue()
    assert "loras/a.safetensors" in shown
    assert "a [line] of the log\n" in shown
    assert shown.endswith("afterwards\n")
