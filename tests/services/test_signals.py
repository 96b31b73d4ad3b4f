"""A command's one piece of work: to its end, or to a signal."""

import signal
import threading
import time
from pathlib import Path

import pytest

from morpheus_boot.errors import NotSetUp
from morpheus_boot.services.signals import Interrupted, run_to_end
from tests.services.watched import signal_this_thread, signal_us
from tests.wait import wait_until


def test_what_the_work_returns_comes_back() -> None:
    assert run_to_end(lambda _stopping: "done") == "done"


def test_what_the_work_raises_comes_out() -> None:
    full = NotSetUp("volume", "it is full of eels", "drain it")

    def work(_stopping: threading.Event) -> None:
        raise full

    with pytest.raises(NotSetUp) as raised:
        run_to_end(work)

    assert raised.value is full


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_work_save_what_it_holds(signum: signal.Signals) -> None:
    saved: list[str] = []

    def work(stopping: threading.Event) -> None:
        signal_us(signum)
        stopping.wait()
        saved.append("part")

    with pytest.raises(Interrupted) as raised:
        run_to_end(work, grace_s=1000)

    assert raised.value.signum == signum
    assert saved == ["part"]


def test_a_signal_that_comes_to_the_work_itself_is_answered() -> None:
    def work(stopping: threading.Event) -> None:
        signal_this_thread(signal.SIGTERM)
        stopping.wait()

    with pytest.raises(Interrupted):
        run_to_end(work, grace_s=1000)


def test_under_nohup_a_lost_terminal_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def work(_stopping: threading.Event) -> str:
        signal_us(signal.SIGHUP)
        return "done"

    try:
        assert run_to_end(work) == "done"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_work_that_hangs_is_left_after_its_grace() -> None:
    begin = time.monotonic()

    def work(_stopping: threading.Event) -> None:
        signal_us(signal.SIGTERM)
        threading.Event().wait()

    with pytest.raises(Interrupted):
        run_to_end(work, grace_s=0.3)

    assert 0.3 <= time.monotonic() - begin < 2


def test_only_a_second_sigint_does_not_wait_for_the_grace() -> None:
    begin = time.monotonic()
    second = threading.Event()

    def work(stopping: threading.Event) -> None:
        signal_us(signal.SIGINT)
        stopping.wait()
        signal_us(signal.SIGTERM)
        second.wait(0.3)
        signal_us(signal.SIGINT)
        threading.Event().wait()

    with pytest.raises(Interrupted) as raised:
        run_to_end(work, grace_s=1000)

    assert raised.value.signum == signal.SIGINT
    assert 0.3 <= time.monotonic() - begin < 10


def test_signals_and_descriptors_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    fds_before = _open_fds()

    run_to_end(lambda _stopping: None)

    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
    wait_until(lambda: _open_fds() <= fds_before)


def _open_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
