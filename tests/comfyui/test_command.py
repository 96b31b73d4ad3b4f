"""ComfyUI's command line."""

from pathlib import Path

import pytest

from morpheus_boot.comfyui.command import comfyui_command
from morpheus_boot.comfyui.find import ComfyUI

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
