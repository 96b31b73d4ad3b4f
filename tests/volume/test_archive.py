"""Archives: a tree comes back as it was, or the archive is refused."""

import gzip
import hashlib
import io
import logging
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from morpheus_boot.volume.archive import digest_of, pack, staged, stray_links, unpack
from tests.testbed.shim import Shim


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "js" / "empty").mkdir(parents=True)
    (folder / "js" / "a.js").write_text("alert(1)")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "ü.py").write_bytes(os.urandom(100_000))
    (folder / "link").symlink_to("js/a.js")
    (folder / "js" / "up").symlink_to("..")
    (folder / "dangling").symlink_to("js/none")
    return folder


def content_of(folder: Path) -> dict[str, tuple[object, ...]]:
    return {
        str(path.relative_to(folder)): (
            str(path.readlink()) if path.is_symlink() else path.is_dir() or path.read_bytes(),
            path.is_symlink() or path.stat().st_mode & 0o111,
        )
        for path in folder.rglob("*")
    }


def test_a_tree_comes_back_as_it_was(tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "volume" / "archives" / "a.tar.gz"

    pack(tree, archive)

    assert unpack(archive, tmp_path / "local" / "back")
    assert content_of(tmp_path / "local" / "back") == content_of(tree)
    assert sorted(p.name for p in archive.parent.iterdir()) == ["a.tar.gz", "a.tar.gz.sha256"]
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert digest_of(archive).read_text() == f"{digest}  a.tar.gz\n"


def test_the_same_tree_makes_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "a.tar.gz")
    os.utime(tree / "run.sh", (1, 1))
    (tree / "run.sh").chmod(0o700)
    pack(tree, tmp_path / "b.tar.gz")

    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_a_missing_archive_is_no_error_and_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not unpack(tmp_path / "none.tar.gz", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert not caplog.records


def flip_a_byte(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)


def cut_it(archive: Path) -> None:
    os.truncate(archive, archive.stat().st_size - 100)


def lose_the_digest(archive: Path) -> None:
    digest_of(archive).unlink()


@pytest.mark.parametrize("damage", [flip_a_byte, cut_it, lose_the_digest])
def test_a_damaged_archive_is_named_and_leaves_nothing(
    damage: Callable[[Path], None], tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = tmp_path / "a.tar.gz"
    pack(tree, archive)
    damage(archive)

    assert not unpack(archive, tmp_path / "local" / "back")

    assert list((tmp_path / "local").iterdir()) == []
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert f"{archive}: damaged (" in caplog.text
    pack(tree, archive)
    assert unpack(archive, tmp_path / "local" / "back")


@pytest.mark.parametrize("file", ["a.tar.gz", ".sha256"])
def test_an_archive_that_the_volume_does_not_give_this_time_is_kept(
    file: str, tree: Path, tmp_path: Path, shim: Shim
) -> None:
    archive = tmp_path / "volume" / "a.tar.gz"
    pack(tree, archive)
    unpack_it = (
        "import sys, pathlib, morpheus_boot.volume.archive as a; "
        "print(a.unpack(*map(pathlib.Path, sys.argv[1:])))"
    )

    done = subprocess.run(
        [sys.executable, "-c", unpack_it, archive, tmp_path / "back"],
        env=shim.env(root=archive.parent, match=f"read:{file}", do="errno:EIO"),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "False\n"
    assert done.stderr == f"{archive}: can't be read (Input/output error)\n"
    assert unpack(archive, tmp_path / "back")


def file_member(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def link_member(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "members",
    [
        [file_member("../out")],
        [file_member("/tmp/out")],
        [file_member("a/../../out")],
        [link_member("a", "../out")],
        [link_member("a", "/etc/passwd")],
        [link_member("a", "b"), link_member("b", "..")],
        [link_member("a", "/etc/passwd", tarfile.LNKTYPE)],
        [link_member("a", "", tarfile.FIFOTYPE)],
    ],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(
    members: list[tarfile.TarInfo], tmp_path: Path
) -> None:
    archive = tmp_path / "volume" / "a.tar.gz"
    archive.parent.mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            tar.addfile(member)
    archive.write_bytes(gzip.compress(buffer.getvalue()))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    digest_of(archive).write_text(f"{digest}  a.tar.gz\n")

    assert not unpack(archive, tmp_path / "local" / "back")

    assert list((tmp_path / "local").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_what_leads_out_of_a_tree_or_is_no_file_is_not_packed(tree: Path, tmp_path: Path) -> None:
    (tree / "passwords").symlink_to("/etc/passwd")
    (tree / "js" / "out").symlink_to("../../elsewhere")
    os.mkfifo(tree / "pipe")

    assert {p.name for p in stray_links(tree)} == {"passwords", "out"}
    pack(tree, tmp_path / "a.tar.gz")

    assert unpack(tmp_path / "a.tar.gz", tmp_path / "back")
    names = {p.name for p in (tmp_path / "back").rglob("*")}
    assert "run.sh" in names
    assert names.isdisjoint({"passwords", "out", "pipe"})


def test_a_failed_packing_leaves_the_old_archive_and_no_part(tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "volume" / "a.tar.gz"
    pack(tree, archive)
    before = archive.read_bytes()
    digest_of(archive).unlink()
    digest_of(archive).mkdir()  # its digest can't be written
    (tree / "new.py").write_text("new")

    with pytest.raises(OSError, match=r"a\.tar\.gz\.sha256"):
        pack(tree, archive)

    assert archive.read_bytes() == before
    assert len(list(archive.parent.iterdir())) == 2


def test_a_folder_that_another_process_put_there_meanwhile_stays(tmp_path: Path) -> None:
    folder = tmp_path / "folder"

    with staged(folder) as staging:
        (staging / "mine").touch()
        folder.mkdir()
        (folder / "theirs").touch()

    assert [p.name for p in folder.iterdir()] == ["theirs"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_an_archive_that_is_used_does_not_look_abandoned(tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    pack(tree, archive)
    os.utime(archive, (0, 0))

    unpack(archive, tmp_path / "back")

    assert archive.stat().st_mtime > time.time() - 60
