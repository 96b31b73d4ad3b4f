"""One queue for all that happens."""

import threading
import time

from morpheus_boot.services.mailbox import Mailbox


def test_what_was_put_is_taken_once_and_in_order() -> None:
    box: Mailbox[int] = Mailbox()
    for item in range(3):
        box.put(item)

    assert box.take() == [0, 1, 2]
    assert box.take(0) == []


def test_an_empty_mailbox_waits_for_its_whole_time() -> None:
    box: Mailbox[int] = Mailbox()
    box.put(1)
    box.take()
    begin = time.monotonic()

    assert box.take(0.1) == []
    assert time.monotonic() - begin >= 0.1


def test_whoever_waits_is_woken() -> None:
    box: Mailbox[str] = Mailbox()
    threading.Timer(0.05, box.put, ["late"]).start()

    assert box.take() == ["late"]


def test_a_crowd_does_not_block_who_puts() -> None:
    box: Mailbox[int] = Mailbox()

    for item in range(100_000):  # more than the pipe behind it takes
        box.put(item)

    assert len(box.take()) == 100_000
