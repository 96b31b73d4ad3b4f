"""ComfyUI 0.3 asks folder_paths, which then checks nothing; newer ones check as our guard does."""

import posixpath
from pathlib import Path
from types import SimpleNamespace

import pytest

from morpheus_boot.comfyui.guard.installation import hold_to
from morpheus_boot.comfyui.guard.paths import Places


class OldFolderPaths(SimpleNamespace):
    """The three functions as in 0.3.64, seen from the input directory."""

    def __init__(self, places: Places) -> None:
        def annotated(name: str, default_dir: str | None = None) -> str:
            bare, directory = places.split(name)
            return posixpath.join(directory or default_dir or places.input, bare)

        def save_path(prefix: str, output: str, width: int = 0, height: int = 0) -> tuple[str, int]:
            return posixpath.join(output, prefix), width * height

        super().__init__(
            get_annotated_filepath=annotated,
            exists_annotated_filepath=lambda name: Path(annotated(name)).exists(),
            get_save_image_path=save_path,
        )


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("jobs/j1", "input", "temp", "own", "out"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x").touch()
    (tmp_path / "jobs" / "link").symlink_to(tmp_path / "out")
    return Places(str(tmp_path / "jobs"), str(tmp_path / "input"), str(tmp_path / "temp"))


@pytest.fixture
def folder_paths(places: Places) -> OldFolderPaths:
    guarded = OldFolderPaths(places)
    hold_to(places, guarded, lambda: True)
    return guarded


@pytest.mark.parametrize("name", ["x", "x [temp]", "j1/x [output]", "../temp/x", "{jobs}/j1/x"])
def test_what_lies_inside_is_found(folder_paths: OldFolderPaths, places: Places, name: str) -> None:
    name = name.format(jobs=places.jobs)

    assert Path(folder_paths.get_annotated_filepath(name)).is_file()
    assert folder_paths.exists_annotated_filepath(name) is True


def test_what_is_not_there_is_not_found(folder_paths: OldFolderPaths) -> None:
    assert folder_paths.exists_annotated_filepath("no") is False


@pytest.mark.parametrize("name", ["../out/x", "{jobs}/../out/x", "link/x [output]", "/etc/passwd"])
def test_what_lies_outside_is_not(folder_paths: OldFolderPaths, places: Places, name: str) -> None:
    name = name.format(jobs=places.jobs)

    assert folder_paths.exists_annotated_filepath(name) is False
    with pytest.raises(ValueError, match="Invalid file path"):
        folder_paths.get_annotated_filepath(name)


def test_a_custom_node_may_use_a_directory_of_its_own(
    folder_paths: OldFolderPaths, tmp_path: Path
) -> None:
    own = str(tmp_path / "own")

    assert folder_paths.get_annotated_filepath("x", own) == f"{own}/x"
    assert folder_paths.get_annotated_filepath("x", default_dir=own) == f"{own}/x"
    with pytest.raises(ValueError, match="Invalid file path"):
        folder_paths.get_annotated_filepath("../out/x", own)


def test_a_prefix_through_a_link_is_refused(folder_paths: OldFolderPaths, places: Places) -> None:
    saved = folder_paths.get_save_image_path("j1/output/x", places.jobs, 2, 3)

    assert saved == (f"{places.jobs}/j1/output/x", 6)
    for prefix in ("link/x", "../out/x", "/etc/x"):
        with pytest.raises(ValueError, match="Invalid filename prefix"):
            folder_paths.get_save_image_path(prefix, places.jobs)


def test_nothing_is_saved_while_the_volume_is_away(places: Places) -> None:
    """A prompt may run for longer than the volume stays."""
    guarded = OldFolderPaths(places)
    hold_to(places, guarded, lambda: False)

    with pytest.raises(OSError, match="not mounted any more"):
        guarded.get_save_image_path("j1/output/x", places.jobs)
