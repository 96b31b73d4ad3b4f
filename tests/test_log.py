"""The lines of other programs in our log."""

import logging

import pytest

from morpheus_boot.log import Entry, for_no_terminal, parse_terminal_line


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m and plain", "red and plain"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://host\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1b(Bcharset\x1b7\x1b=", "charset"),
        ("\x9b31mred, in one byte\x07", "red, in one byte"),
        ("a\ttab, ä and 你好 stay", "a\ttab, ä and 你好 stay"),
    ],
)
def test_what_only_a_terminal_understands_is_left_out(line: str, shown: str) -> None:
    assert for_no_terminal(line) == shown


def test_a_line_that_begins_with_its_level_has_it() -> None:
    line = "\x1b[31m[ERROR] Failed to initialize database\x1b[0m"

    assert parse_terminal_line(line) == Entry(logging.ERROR, "Failed to initialize database")
    assert parse_terminal_line("[Prompt Server] web root: /web") is None
    assert parse_terminal_line("got prompt") is None
