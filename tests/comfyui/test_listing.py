"""Which models ComfyUI does not list, told by the directories that it reads."""

from pathlib import Path

import pytest

from morpheus_boot.comfyui.listing import find_unlisted


@pytest.mark.parametrize(
    ("name", "reads", "listed", "reason"),
    [
        # A model in clip/ is listed where text_encoders read it.
        ("clip/a.safetensors", {"text_encoders": ["text_encoders", "clip"]}, "a.safetensors", None),
        ("loras/sub/a.pt", {"loras": ["loras"]}, "sub/a.pt", None),
        ("loras/a.pt", {"loras": ["loras"]}, "", "loras does not list it; is .pt an ending"),
        ("loras/A.CKPT", {"loras": ["loras"]}, "a.ckpt", "loras does not list it"),
        ("ipadapter/b.bin", {}, "", "no folder of ComfyUI's reads"),
        ("loras/dangling.pt", {"loras": ["loras"]}, "dangling.pt", "its link dangles"),
        ("clip/t5/dangling.json", {"clip": ["clip"]}, "", "its link dangles"),
        # What is no model by its ending, for whoever loads the folder as a whole.
        ("clip/t5/config.json", {"clip": ["clip"]}, "", None),
        ("clip/t5/tokenizer.model", {"clip": ["clip"]}, "", None),
        ("clip/t5/merges", {"clip": ["clip"]}, "", None),
        ("clip/t5/chat_template.jinja", {}, "", None),
        ("diffusers/sdxl/unet/a.safetensors", {"diffusers": ["diffusers"]}, "", None),
    ],
)
def test_a_model_that_is_not_listed_is_named_with_the_reason(
    tmp_path: Path, name: str, reads: dict[str, list[str]], listed: str, reason: str | None
) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.symlink_to("/nowhere" if "dangling" in name else __file__)
    paths = {key: [str(tmp_path / folder) for folder in read] for key, read in reads.items()}

    unlisted = find_unlisted(tmp_path, [name], paths, lambda _: frozenset({listed}))

    assert [one.name for one in unlisted] == ([] if reason is None else [name])
    for one in unlisted:
        assert str(reason) in one.reason
        # Only where nobody reads the folder may it be for a custom node of its own ways.
        assert one.known == ("no folder" not in one.reason)


def test_however_many_models_each_folder_is_asked_once(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    names = [f"{number}.safetensors" for number in range(5)]
    for name in names:
        (tmp_path / "loras" / name).touch()
    asked: list[str] = []

    def files_of(folder: str) -> frozenset[str]:
        asked.append(folder)
        return frozenset(names)

    paths = {"loras": [str(tmp_path / "loras")], "vae": [str(tmp_path / "vae")]}

    assert find_unlisted(tmp_path, [f"loras/{name}" for name in names], paths, files_of) == ()
    assert asked == ["loras"]
