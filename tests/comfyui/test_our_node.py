"""Our own node, which guards ComfyUI's port: nothing may keep it out."""

import pytest

from morpheus_boot.comfyui.our_node import require_our_node
from morpheus_boot.errors import NotSetUp


@pytest.mark.parametrize(
    "argument",
    ["--disable-all-custom-nodes", "--disable-all", "--disable-al", "--disable-all-custom-nodes="],
)
def test_an_argument_that_keeps_it_out_is_refused_however_short(argument: str) -> None:
    with pytest.raises(NotSetUp, match="--disable-all-custom-nodes"):
        require_our_node(("--lowvram", argument))


def test_arguments_that_only_look_like_it_are_not_refused() -> None:
    require_our_node(
        ("--disable-api-nodes", "--disable-auto-launch", "--disable-assets", "--", "-d")
    )
