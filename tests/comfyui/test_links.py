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


NAME = "loras/a.safetensors"


def put(models: Path, cache: Path, *names: str, running: bool = False) -> tuple[Link, ...]:
    links = [Link(name, cache / NAME) for name in names or (NAME,)]
    return put_links(models, links, cache, running=running)


def test_a_link_leads_to_the_cached_file_and_is_then_left_alone(models: Path, cache: Path) -> None:
    put(models, cache, NAME, "pulid/b.safetensors")
    inode = (models / NAME).lstat().st_ino

    put(models, cache, NAME, "pulid/b.safetensors")

    assert (models / NAME).read_bytes() == b"model"
    assert (models / "pulid/b.safetensors").read_bytes() == b"model"
    assert (models / NAME).lstat().st_ino == inode


@pytest.mark.parametrize("running", [False, True])
def test_a_link_of_another_mount_path_is_led_anew(
    models: Path, cache: Path, caplog: pytest.LogCaptureFixture, *, running: bool
) -> None:
    (models / "loras").mkdir(parents=True)
    (models / NAME).symlink_to("/runpod-volume/model_cache/loras/a.safetensors")

    put(models, cache, running=running)

    assert (models / NAME).read_bytes() == b"model"
    assert ("until it is restarted" in caplog.text) == running


def test_a_real_file_is_never_replaced(
    models: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (models / "loras").mkdir(parents=True)
    (models / NAME).write_bytes(b"ComfyUI's own")

    assert put(models, cache) == ()
    assert (models / NAME).read_bytes() == b"ComfyUI's own"
    assert "is kept" in caplog.text


def test_a_folder_that_an_old_script_linked_into_the_cache_keeps_its_model(
    models: Path, cache: Path
) -> None:
    models.mkdir(parents=True)
    (models / "loras").symlink_to(cache / "loras")

    put(models, cache)

    assert not (cache / NAME).is_symlink()
    assert (models / NAME).read_bytes() == b"model"


def test_a_dead_link_of_ours_goes_and_one_of_others_stays(models: Path, cache: Path) -> None:
    (models / "vae").mkdir(parents=True)
    (models / "vae/gone.safetensors").symlink_to(cache / "vae/gone.safetensors")
    (models / "vae/others.safetensors").symlink_to("/nowhere/others.safetensors")

    put(models, cache)

    assert [path.name for path in (models / "vae").iterdir()] == ["others.safetensors"]


def test_a_link_that_can_not_be_made_is_not_the_volumes_fault(models: Path, cache: Path) -> None:
    models.mkdir(parents=True)
    (models / "loras").write_text("in the way")

    with pytest.raises(StorageFailed, match="loras can't be written") as caught:
        put(models, cache)

    assert "volume" not in str(caught.value)
