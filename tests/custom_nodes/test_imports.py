"""What ComfyUI 0.3.64 and 0.38.1 print of nodes that they can't import, and what we make of it."""

import pytest

from morpheus_boot.comfyui.custom_nodes import FailedImport, Imports

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


FAILED = (
    FailedImport("My Node", "No module named 'nothing_like_it'"),
    FailedImport("Plain", "due to the lack of NODE_CLASS_MAPPINGS."),
    FailedImport("Silent", ""),
)


@pytest.mark.parametrize(
    ("log", "failed"), [(OLD, FAILED), (NEW, FAILED), ("   1.8 seconds: /a/Alpha\n", ())]
)
def test_nodes_that_fail_are_named_with_comfyuis_reason_and_no_longer_once_it_has_ended(
    log: str, failed: tuple[FailedImport, ...]
) -> None:
    imports = Imports()
    for line in log.splitlines():
        imports.add(line)

    assert imports.failed == failed
    imports.clear()
    assert imports.failed == ()
