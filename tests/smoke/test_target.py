"""Which links smoke takes out of a real ComfyUI afterwards."""

from pathlib import Path

from morpheus_boot.smoke.target import remove_links


def test_only_links_that_lead_to_this_smoke_s_volume_are_removed(tmp_path: Path) -> None:
    loras = tmp_path / "ComfyUI" / "models" / "loras"
    loras.mkdir(parents=True)
    volume = tmp_path / "volume"
    (loras / "ours.safetensors").symlink_to(volume / "model_cache" / "loras" / "ours.safetensors")
    (loras / "another.safetensors").symlink_to(tmp_path / "another" / "ours.safetensors")
    (loras / "file.safetensors").touch()

    names = ("ours", "another", "file", "missing")
    remove_links(tmp_path / "ComfyUI", [f"loras/{name}.safetensors" for name in names], volume)

    assert {path.name for path in loras.iterdir()} == {"another.safetensors", "file.safetensors"}
