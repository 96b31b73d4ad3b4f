"""Work in threads of its own: what it returns and raises comes back, and one that hangs keeps no process."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from morpheus_boot.errors import NotSetUp
from morpheus_boot.work.background import begin, together

FULL = NotSetUp("volume", "it is full of eels", "drain it")


def fail() -> None:
    raise FULL


def test_what_the_work_returns_or_raises_is_the_futures() -> None:
    assert begin(lambda: "done", "work").result() == "done"
    with pytest.raises(NotSetUp) as raised:
        begin(fail, "work").result()

    assert raised.value is FULL


def test_several_things_come_back_in_the_order_of_their_items() -> None:
    second_is_through = threading.Event()

    def work(which: str) -> str:
        if which == "second":
            second_is_through.set()
        else:
            assert second_is_through.wait(10)
        return which

    assert together(work, ["first", "second"], 2) == ["first", "second"]


def test_the_first_error_comes_out_once_all_are_through() -> None:
    through: list[int] = []

    def work(which: int) -> None:
        through.append(which)
        if which in {1, 2}:
            raise ValueError(which)

    with pytest.raises(ValueError, match="1"):
        together(work, range(4), 1)

    assert through == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "hanging",
    [
        "begin(threading.Event().wait, 'work')",
        "begin(lambda: together(lambda _: threading.Event().wait(), range(9), 2), 'work')",
    ],
)
def test_work_that_hangs_does_not_keep_the_process(hanging: str) -> None:
    program = f"import threading\nfrom morpheus_boot.work.background import *\n{hanging}\n"

    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        timeout=20,
        check=False,
    )

    assert ended.returncode == 0
