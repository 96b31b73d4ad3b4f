"""What ComfyUI lists, told by the directories that it reads."""

from pathlib import Path

import pytest

from morpheus_boot.comfyui.listing import find_unlisted


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("clip/a.safetensors", "ipadapter/b.bin", "loras/c.xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"m")
    return tmp_path


def test_a_model_in_clip_is_found_where_text_encoders_read_it(models: Path) -> None:
    paths = {"text_encoders": [str(models / "text_encoders"), str(models / "clip")]}
    listed = {"text_encoders": frozenset({"a.safetensors"})}

    assert find_unlisted(models, ["clip/a.safetensors"], paths, listed.__getitem__) == ()


def test_a_folder_that_nobody_reads_is_said_to_be_unknown(models: Path) -> None:
    (unlisted,) = find_unlisted(models, ["ipadapter/b.bin"], {}, lambda _: frozenset())

    assert not unlisted.known
    assert "no folder" in unlisted.reason


def test_a_wrong_ending_is_named(models: Path) -> None:
    paths = {"loras": [str(models / "loras")]}

    (unlisted,) = find_unlisted(models, ["loras/c.xyz"], paths, lambda _: frozenset())

    assert unlisted.known
    assert ".xyz" in unlisted.reason


def test_a_dangling_link_is_named_although_comfyui_lists_it(models: Path) -> None:
    (models / "loras/d.safetensors").symlink_to("/nowhere")
    paths = {"loras": [str(models / "loras")]}

    (unlisted,) = find_unlisted(
        models, ["loras/d.safetensors"], paths, lambda _: frozenset({"d.safetensors"})
    )

    assert unlisted.reason == "its link dangles"


def test_however_many_models_each_folder_is_asked_once(models: Path) -> None:
    names = [f"loras/{number}.safetensors" for number in range(5)]
    for name in names:
        (models / name).write_bytes(b"m")
    asked: list[str] = []

    def files_of(folder: str) -> frozenset[str]:
        asked.append(folder)
        return frozenset(Path(name).name for name in names)

    paths = {"loras": [str(models / "loras")], "vae": [str(models / "vae")]}

    assert find_unlisted(models, names, paths, files_of) == ()
    assert asked == ["loras"]
