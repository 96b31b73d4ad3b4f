"""What a fill shows: bars on a terminal, lines elsewhere."""

import io
import logging

import pytest

from morpheus_boot.config.redact import Redactor
from morpheus_boot.report.log import set_up_log
from morpheus_boot.report.progress import shown_on
from morpheus_boot.report.state import ModelStage, ModelState
from tests.wait import wait_until

FETCHING = ModelState("loras/a.safetensors", ModelStage.FETCHING, 50, 100, retries=2)
PRESENT = ModelState("loras/a.safetensors", ModelStage.PRESENT, 100, 100)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("on_terminal", [True, False])
def test_on_a_terminal_progress_is_a_bar_and_all_else_a_line(on_terminal: bool) -> None:
    stream = Terminal() if on_terminal else io.StringIO()
    moved: list[ModelState] = []
    set_up_log("text", 0, Redactor(), stream)

    with shown_on(stream, moved.append) as report:
        report(FETCHING)
        wait_until(lambda: "2 retries" in stream.getvalue())
        logging.getLogger("morpheus.cache").info("a [line] of the log")
        report(PRESENT)
    logging.getLogger("morpheus.cache").info("afterwards")

    assert moved == [FETCHING, PRESENT]
    shown = stream.getvalue()
    assert ("50% of 100 bytes" in shown) is not on_terminal
    assert "a [line] of the log\n" in shown
    assert "loras/a.safetensors: present" in shown
    assert shown.endswith("afterwards\n")
