import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.fileserver.serving import FileServer, names_in
from tests.testbed.content import nest
from tests.testbed.shim import Shim
from tests.wait import wait_until


def test_a_job_goes_with_all_its_files_and_no_other(shared: FileServer, job: str) -> None:
    shared.upload(b"x", worker_job_id=job, sub_dir="a/b")
    shared.output(job, "c/d.png", b"y")
    other = shared.output(f"{job}-other", "kept", b"z")
    assert shared.post(f"/cleanup/{job}").status_code == 200
    assert not (shared.volume / "jobs" / job).exists()
    assert other.read_bytes() == b"z"
    assert names_in(shared.volume / ".morpheus/trash") == []


def test_it_is_200_however_often_and_also_when_there_was_none(shared: FileServer, job: str) -> None:
    shared.output(job, "a", b"")
    messages = [shared.post(f"/cleanup/{job}").json()["message"] for _ in range(3)]
    assert messages == ["removed", *["there was no such job"] * 2]


@pytest.mark.parametrize("job_id", ["..", ".", "%2e%2e", "a%2fb", "checkpoints", "a%00", "x" * 129])
def test_what_is_no_job_id_is_refused(shared: FileServer, job_id: str) -> None:
    head = f"POST /cleanup/{job_id} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close"
    answer = shared.raw(f"{head}\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 422 "))


@pytest.mark.parametrize("where", ["job", "inside", "deep", "to a file"])
def test_links_go_and_what_they_lead_to_stays(
    shared: FileServer, job: str, tmp_path: Path, where: str
) -> None:
    (tmp_path / "kept").write_bytes(b"kept")
    folder = shared.volume / "jobs" / job
    link, target = {
        "job": (folder, tmp_path),
        "inside": (folder / "output", tmp_path),
        "deep": (folder / "output/a/b", tmp_path),
        "to a file": (folder / "output/f", tmp_path / "kept"),
    }[where]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    assert shared.post(f"/cleanup/{job}").json()["message"] == "removed"
    assert not folder.is_symlink()
    assert not folder.exists()
    assert (tmp_path / "kept").read_bytes() == b"kept"


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, nest])
def test_whatever_is_in_a_jobs_place_goes(
    shared: FileServer, job: str, make: Callable[[Path], None]
) -> None:
    (shared.volume / "jobs").mkdir(exist_ok=True)
    make(shared.volume / "jobs" / job)
    assert shared.post(f"/cleanup/{job}").status_code == 200
    assert not os.path.lexists(shared.volume / "jobs" / job)
    assert names_in(shared.volume / ".morpheus/trash") == []


def test_uploads_and_cleanups_of_one_job_at_once_end_whole(shared: FileServer, job: str) -> None:
    content = os.urandom(100_000)
    stop = threading.Event()

    def clean() -> int:
        cleanups = 0
        with requests.Session() as session:
            while not stop.is_set():
                assert session.post(f"{shared.url}/cleanup/{job}", timeout=20).status_code == 200
                cleanups += 1
        return cleanups

    def upload(number: int) -> int:
        answer = requests.post(
            f"{shared.url}/upload",
            files={"file": (f"{number}", content)},
            data={"worker_job_id": job, "sub_dir": str(number % 3)},
            timeout=20,
        )
        for sub_dir in range(3):
            assert_whole(shared.input_of(job) / str(sub_dir) / str(number), content)
        return answer.status_code

    with ThreadPoolExecutor(6) as pool:
        cleaners = [pool.submit(clean) for _ in range(2)]
        try:
            statuses = set(pool.map(upload, range(150)))
        finally:
            stop.set()
        assert sum(cleaner.result() for cleaner in cleaners) > 10
    assert statuses <= {200, 409}
    assert 200 in statuses
    assert shared.parts == []
    assert shared.post(f"/cleanup/{job}").status_code == 200
    assert not (shared.volume / "jobs" / job).exists()
    assert names_in(shared.volume / ".morpheus/trash") == []


def assert_whole(path: Path, content: bytes) -> None:
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return
    assert found == content


@pytest.mark.parametrize("refused", ["mkdir:trash", "rename"])
def test_a_full_volume_is_cleaned_up_all_the_same(
    start: Callable[..., FileServer], shim: Shim, tmp_path: Path, refused: str
) -> None:
    root = tmp_path / "full"
    (root / "volume/.morpheus").mkdir(parents=True)
    fault = shim.env(root=root / "volume", match=refused, do="errno:EDQUOT")
    server = start(root, env=fault)
    server.output("j", "a/b", b"x")
    assert server.post("/cleanup/j").json()["message"] == "removed"
    assert not (server.volume / "jobs/j").exists()
    assert server.post("/cleanup/j").status_code == 200


def test_what_a_killed_cleanup_left_goes_at_the_next_start(
    start: Callable[..., FileServer], tmp_path: Path
) -> None:
    root = tmp_path / "left"
    left = root / "volume/.morpheus/trash/j.0123456789ab/output"
    left.mkdir(parents=True)
    (left / "f").write_bytes(b"x")
    server = start(root)
    wait_until(lambda: names_in(server.volume / ".morpheus/trash") == [])
