"""Links below ComfyUI's models/: atomic, never in the place of a real file, dead ones of ours removed."""

from pathlib import Path

import pytest

from morpheus_boot.comfyui.links import Link, put_links
from morpheus_boot.errors import StorageFailed


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    model = tmp_path / "model_cache" / "loras" / "a.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"model")
    return tmp_path / "model_cache"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "ComfyUI" / "models"


def link(cache: Path, name: str = "loras/a.safetensors") -> Link:
    return Link(name, cache / "loras" / "a.safetensors")


def test_a_link_leads_to_the_cached_file(models: Path, cache: Path) -> None:
    put_links(models, [link(cache), link(cache, "pulid/b.safetensors")], cache)

    assert (models / "loras/a.safetensors").read_bytes() == b"model"
    assert (models / "pulid/b.safetensors").read_bytes() == b"model"


def test_a_link_that_is_right_is_left_alone(models: Path, cache: Path) -> None:
    put_links(models, [link(cache)], cache)
    inode = (models / "loras/a.safetensors").lstat().st_ino

    put_links(models, [link(cache)], cache)

    assert (models / "loras/a.safetensors").lstat().st_ino == inode


def test_a_link_of_another_mount_path_is_led_anew(models: Path, cache: Path) -> None:
    (models / "loras").mkdir(parents=True)
    (models / "loras/a.safetensors").symlink_to("/runpod-volume/model_cache/loras/a.safetensors")

    put_links(models, [link(cache)], cache)

    assert (models / "loras/a.safetensors").read_bytes() == b"model"


def test_a_real_file_is_never_replaced(
    models: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (models / "loras").mkdir(parents=True)
    (models / "loras/a.safetensors").write_bytes(b"ComfyUI's own")

    placed = put_links(models, [link(cache)], cache)

    assert placed == ()
    assert (models / "loras/a.safetensors").read_bytes() == b"ComfyUI's own"
    assert "is kept" in caplog.text


def test_a_folder_that_an_old_script_linked_into_the_cache_keeps_its_model(
    models: Path, cache: Path
) -> None:
    models.mkdir(parents=True)
    (models / "loras").symlink_to(cache / "loras")

    put_links(models, [link(cache)], cache)

    assert not (cache / "loras/a.safetensors").is_symlink()
    assert (models / "loras/a.safetensors").read_bytes() == b"model"


def test_a_dead_link_of_ours_goes_and_one_of_others_stays(models: Path, cache: Path) -> None:
    (models / "vae").mkdir(parents=True)
    (models / "vae/gone.safetensors").symlink_to(cache / "vae/gone.safetensors")
    (models / "vae/others.safetensors").symlink_to("/nowhere/others.safetensors")

    put_links(models, [link(cache)], cache)

    assert not (models / "vae/gone.safetensors").is_symlink()
    assert (models / "vae/others.safetensors").is_symlink()


def test_a_link_led_elsewhere_while_comfyui_runs_is_said_to_need_a_restart(
    models: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (models / "loras").mkdir(parents=True)
    (models / "loras/a.safetensors").symlink_to(cache / "loras" / "old.safetensors")
    (cache / "loras" / "old.safetensors").write_bytes(b"old")

    put_links(models, [link(cache)], cache, running=True)

    assert "until it is restarted" in caplog.text


def test_a_link_that_can_not_be_made_is_not_the_volumes_fault(models: Path, cache: Path) -> None:
    models.mkdir(parents=True)
    (models / "loras").write_text("in the way")

    with pytest.raises(StorageFailed, match="loras can't be written") as caught:
        put_links(models, [link(cache)], cache)

    assert "volume" not in str(caught.value)
