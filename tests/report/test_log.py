"""The lines of other programs in our log."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from morpheus_boot.report.log import Entry, for_no_terminal, parse_terminal_line


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


@pytest.mark.parametrize("wrong", [{"FILESERVER_PORT": "x"}, {"FILESERVER_PORT": "{taken}"}])
def test_the_file_servers_first_error_comes_as_the_boot_reads_it(
    wrong: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "fileserver"],
            cwd=Path(__file__).parents[2],
            env={
                "PATH": os.environ["PATH"],
                "MORPHEUS_LOCAL_DIR": str(tmp_path),
                "MORPHEUS_LOG": "json",
                **{name: value.format(taken=taken) for name, value in wrong.items()},
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert ended.returncode in {64, 78}
    [line] = ended.stderr.splitlines()
    assert json.loads(line)["level"] == "error"
