"""What ComfyUI 0.3.64 and 0.38.1 print of nodes that they can't import, and what we make of it."""

import sys
import threading
from collections.abc import Iterator

import pytest

from morpheus_boot.comfyui.custom_nodes import FailedImport, Printed, failed_imports
from tests.wait import wait_until

OLD = """\
Traceback (most recent call last):
  File "/opt/morpheus/nodes/custom_nodes/My Node/__init__.py", line 1, in <module>
    import nothing_like_it
ModuleNotFoundError: No module named 'nothing_like_it'

Cannot import /opt/morpheus/nodes/custom_nodes/My Node module for custom nodes: No module named 'nothing_like_it'
Skip /opt/morpheus/nodes/custom_nodes/Plain module for custom nodes due to the lack of NODE_CLASS_MAPPINGS.

Import times for custom nodes:
   0.0 seconds (IMPORT FAILED): /opt/morpheus/nodes/custom_nodes/My Node
   0.0 seconds (IMPORT FAILED): /opt/morpheus/nodes/custom_nodes/Plain
   0.1 seconds (IMPORT FAILED): /opt/morpheus/nodes/custom_nodes/Silent
   1.8 seconds: /opt/morpheus/nodes/custom_nodes/Alpha
"""
NEW = "".join(f"[INFO] {line}\n" if line else "\n" for line in OLD.splitlines())


@pytest.mark.parametrize("log", [OLD, NEW])
def test_nodes_that_fail_are_named_with_comfyuis_reason(log: str) -> None:
    assert failed_imports(log.splitlines()) == (
        FailedImport("My Node", "No module named 'nothing_like_it'"),
        FailedImport("Plain", "due to the lack of NODE_CLASS_MAPPINGS."),
        FailedImport("Silent", ""),
    )


def test_a_start_without_failures_names_none() -> None:
    assert failed_imports(["   1.8 seconds: /a/custom_nodes/Alpha", "Starting server"]) == ()


@pytest.fixture
def _busy_threads() -> Iterator[None]:
    """Threads that take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_busy_threads")
def test_what_comfyui_printed_is_looked_through_while_it_goes_on_printing() -> None:
    printed = Printed()
    looked = threading.Event()

    def go_on() -> None:
        while not looked.is_set():
            printed.add("   0.0 seconds (IMPORT FAILED): /a/custom_nodes/Alpha")

    printing = threading.Thread(target=go_on)
    printing.start()
    try:
        wait_until(lambda: len(printed.lines) > 100)
        for _ in range(20):
            assert failed_imports(printed.lines) == (FailedImport("Alpha", ""),)
    finally:
        looked.set()
        printing.join()
