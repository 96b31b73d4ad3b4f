"""Finding the volume: a mount, not just a directory."""

from pathlib import Path

import pytest

from morpheus_boot.errors import NotSetUp
from morpheus_boot.volume.mount import Mount, find_volume, size_text

ROOT = Mount(Path("/"), "overlay")


def mounted(*points: str) -> tuple[Mount, ...]:
    return (ROOT, *(Mount(Path(point), "fuse") for point in points))


@pytest.mark.parametrize(
    ("points", "found"),
    [
        (["/workspace", "/workspace/job_data"], "/workspace/job_data"),
        (["/runpod-volume"], "/runpod-volume"),
        (["/workspace", "/runpod-volume"], "/runpod-volume"),
        (["/workspace"], "/workspace"),
    ],
)
def test_the_first_mounted_usual_path_is_the_volume(points: list[str], found: str) -> None:
    assert find_volume(None, 20, on_runpod=True, mounts=mounted(*points)).root == Path(found)


def test_on_runpod_no_mount_at_all_is_an_error_that_says_where_it_looked() -> None:
    with pytest.raises(NotSetUp, match="/workspace/job_data, /runpod-volume, /workspace"):
        find_volume(None, 20, on_runpod=True, mounts=(ROOT,))


def test_on_runpod_the_containers_own_disk_is_refused() -> None:
    with pytest.raises(NotSetUp, match="vanish"):
        find_volume(Path("/workspace/job_data"), 20, on_runpod=True, mounts=(ROOT,))


def test_on_runpod_a_folder_inside_a_mounted_volume_is_fine() -> None:
    found = find_volume(Path("/workspace/mine"), 20, on_runpod=True, mounts=mounted("/workspace"))

    assert found.mount.point == Path("/workspace")
    assert found.size_bytes == 20 * 10**9


def test_off_runpod_it_is_job_data_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert find_volume(None, None, on_runpod=False, mounts=(ROOT,)).root == tmp_path / "job_data"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(None, "an unknown size"), (0, "0 bytes"), (1500, "1.5 kB"), (20 * 10**9, "20.0 GB")],
)
def test_sizes_read_as_runpod_sells_them(size_bytes: int | None, text: str) -> None:
    assert size_text(size_bytes) == text


def test_a_working_directory_that_is_gone_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(NotSetUp, match="the working directory is gone"):
        find_volume(None, 20, on_runpod=False, mounts=(ROOT,))
