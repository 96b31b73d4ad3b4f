"""ComfyUI's command line, and the arguments that would keep our node out."""

from pathlib import Path

import pytest

from morpheus_boot.comfyui.command import comfyui_command
from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.comfyui.our_node import require_our_node
from morpheus_boot.errors import NotSetUp

LOCAL = Path("/opt/morpheus/comfyui")


def command(folder: Path, options: str, *more: str) -> tuple[str, ...]:
    """Of a ComfyUI whose cli_args.py holds ``options``."""
    (folder / "comfy").mkdir()
    (folder / "comfy" / "cli_args.py").write_text(options)
    return comfyui_command(
        ComfyUI(folder, Path("/usr/bin/python3")),
        port=8188,
        jobs=Path("/workspace/jobs"),
        local=LOCAL,
        extra_paths=LOCAL / "extra.yaml",
        more=more,
    )


def test_the_database_lies_in_the_user_folder_and_not_below_comfyui(tmp_path: Path) -> None:
    argv = command(tmp_path, 'add_argument("--database-url")')

    at = argv.index("--database-url")
    assert argv[at + 1] == "sqlite:////opt/morpheus/comfyui/user/comfyui.db"


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ("", ()),
        ('("--database-url")', ("--database-url", "sqlite:///:memory:")),
        ('("--database-url")', ("--database=sqlite:///:memory:",)),
    ],
    ids=["not known", "given", "given in short"],
)
def test_the_database_is_left_to_a_comfyui_that_has_none_and_to_a_user_who_has_his_own(
    tmp_path: Path, options: str, more: tuple[str, ...]
) -> None:
    ours = [arg for arg in command(tmp_path, options, *more) if "comfyui.db" in arg]

    assert not ours


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
