"""A name on the volume is either whole or not there."""

import os
from pathlib import Path

import pytest

from morpheus_boot.volume.publish import replacing, write_whole


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    final = tmp_path / "made" / "a.json"
    write_whole(final, b"old", mode=0o600)

    with replacing(final) as file:
        file.write(b"new")
        file.flush()
        assert final.read_bytes() == b"old"

    assert final.read_bytes() == b"new"
    assert list(final.parent.iterdir()) == [final]


def test_nothing_stays_of_one_that_did_not_end_well(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", b"old")

    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.json") as file:
        file.write(b"new" * (1 // 0))

    assert (tmp_path / "a.json").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_of_two_exclusive_writers_the_first_has_the_name(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", b"first", exclusive=True)

    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a.json", b"second", exclusive=True)

    assert (tmp_path / "a.json").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_open_folder_is_written_into_whatever_its_name_is_by_then(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    folder.rename(tmp_path / "moved")
    folder.symlink_to("/nowhere")

    write_whole(Path(f"/proc/self/fd/{fd}/a.txt"), b"text")

    os.close(fd)
    assert (tmp_path / "moved" / "a.txt").read_bytes() == b"text"
