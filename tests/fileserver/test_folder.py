"""Opening a job's files."""

import os
import shutil
import socket
import stat
import threading
from pathlib import Path

import pytest

from morpheus_boot.jobs.files import NoSuchFile, list_outputs, open_output
from morpheus_boot.jobs.names import JobId, OutputPath
from morpheus_boot.volume.layout import Layout


@pytest.fixture(params=["plain", "behind a link"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    """A volume with a job; its root may well be reached through a link, by an operator's wish."""
    root = tmp_path / "volume"
    output = root / "jobs/j/output"
    (output / "deep/er").mkdir(parents=True)
    (output / "f").write_bytes(b"content")
    (output / "deep/er/g").write_bytes(b"deep")
    (root / "secret").write_bytes(b"secret")
    if request.param == "plain":
        return Layout(root)
    (tmp_path / "link").symlink_to(root)
    return Layout(tmp_path / "link")


def read(layout: Layout, path: str, job: str = "j") -> bytes:
    file = open_output(layout, JobId(job), OutputPath.parse(path))
    try:
        return os.read(file.fd, 100)
    finally:
        file.close()


def test_a_jobs_files_are_opened(layout: Layout) -> None:
    assert read(layout, "f") == b"content"
    assert read(layout, "deep/er/g") == b"deep"


@pytest.mark.parametrize("at", ["jobs", "jobs/j", "jobs/j/output", "jobs/j/output/deep", "file"])
@pytest.mark.parametrize("to", ["absolute", "relative"])
def test_a_link_anywhere_on_the_way_is_missing(layout: Layout, at: str, to: str) -> None:
    place = layout.root / ("jobs/j/output/deep/er/g" if at == "file" else at)
    moved = layout.root / "moved"
    place.rename(moved)
    place.symlink_to(moved if to == "absolute" else os.path.relpath(moved, place.parent))
    assert (layout.root / "jobs/j/output/deep/er/g").read_bytes() == b"deep"
    with pytest.raises(NoSuchFile):
        read(layout, "deep/er/g")
    if at in {"jobs", "jobs/j", "jobs/j/output"}:
        assert list_outputs(layout, JobId("j")) == ()


@pytest.mark.parametrize("kind", ["socket", "fifo", "device"])
def test_what_is_no_regular_file_is_missing(layout: Layout, kind: str) -> None:
    place = layout.jobs / "j/output/odd"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        try:
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(4, 255))
        except PermissionError:
            pytest.skip("no device may be made here")
    with pytest.raises(NoSuchFile):
        read(layout, "odd")
    assert [str(output.path) for output in list_outputs(layout, JobId("j"))] == ["deep/er/g", "f"]


def test_what_vanishes_while_it_is_listed_takes_nothing_else_with_it(layout: Layout) -> None:
    output, stop = layout.jobs / "j/output", threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            (output / "a/b").mkdir(parents=True)
            (output / "a/b/c").write_bytes(b"x")
            shutil.rmtree(output / "a")

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(300):
            names = {str(one.path) for one in list_outputs(layout, JobId("j"))}
            assert {"f", "deep/er/g"} <= names <= {"f", "deep/er/g", "a/b/c"}
    finally:
        stop.set()
        other.join()


def test_no_descriptor_is_left_open(layout: Layout) -> None:
    (layout.jobs / "j/output/link").symlink_to("f")
    os.mkfifo(layout.jobs / "j/output/fifo")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("f", "missing", "link", "fifo", "deep", "f/x", "deep/er/g"):
        try:
            read(layout, path)
        except NoSuchFile:
            continue
    list_outputs(layout, JobId("j"))
    list_outputs(layout, JobId("none"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_outputs_are_listed_by_name_without_links(layout: Layout) -> None:
    (layout.jobs / "j/output/link").symlink_to("f")
    (layout.jobs / "j/output/folder").symlink_to(layout.root)
    listed = list_outputs(layout, JobId("j"))
    assert [(str(output.path), output.size_bytes) for output in listed] == [
        ("deep/er/g", 4),
        ("f", 7),
    ]
