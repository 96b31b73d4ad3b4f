"""A service's bytes become lines."""

import pytest

from morpheus_boot.services.output import LineSplitter, quote_lines


def split(*pieces: bytes) -> list[str]:
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece, 0.0)] + splitter.end()


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"o", b"n", b"e\ntw", b"o"], ["one", "two"]),
        ([b"one\r\ntwo\r", b"\n"], ["one", "two"]),
        ([b"\n\n  \none  \n"], ["one"]),
        ([b"Gr\xc3", b"\xbc\xc3\x9fe\n"], ["Grüße"]),
        ([b"caf\xe9\n"], ["caf\ufffd"]),
        ([b"\r 1%\r 50%", b"\r100%\n", b"next\n"], ["100%", "next"]),
        ([b"10%\r\x20\x20\x20\rdone\n"], ["done"]),
        ([], []),
    ],
)
def test_lines_come_out_as_a_terminal_would_leave_them(
    pieces: list[bytes], lines: list[str]
) -> None:
    assert split(*pieces) == lines


def test_a_line_without_end_is_cut_and_does_not_fill_the_memory() -> None:
    [long, after] = split(*([b"x" * 65536] * 100), b"\nafter\n")

    assert long == "x" * 8192 + " [cut]"
    assert after == "after"


def test_a_long_progress_bar_shows_a_state_every_ten_seconds() -> None:
    splitter = LineSplitter()

    shown = [
        (second, line)
        for second in range(26)
        for line in splitter.feed(b"\r%d of 25" % second, float(second))
    ]

    assert shown == [(11, "10 of 25"), (21, "20 of 25")]
    assert splitter.end() == ["25 of 25"]


def test_an_error_quotes_the_last_five_lines() -> None:
    assert quote_lines("abcdefg") == "its last lines: c | d | e | f | g"
    assert quote_lines(()) == "it printed nothing"
