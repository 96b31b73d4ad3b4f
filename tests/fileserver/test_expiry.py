"""The sweep of old jobs, as a library over a real folder, and once through the server."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from morpheus_boot.cache.lock.workers import beat_for
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.record import Form, JobRecord, Status, now
from morpheus_boot.jobs.removal import expire_jobs, old_jobs, remove_job
from morpheus_boot.jobs.store import JobStore
from morpheus_boot.jobs.uploads import Target, UploadPart
from morpheus_boot.volume.layout import Layout
from tests.fileserver.serving import REPOSITORY, FileServer
from tests.testbed.moosefs import MooseFS
from tests.testbed.mounts import mounted
from tests.testbed.shim import Shim
from tests.wait import wait_until

HOUR_S = 3600.0
TWO_HOURS_AGO = time.time() - 2 * HOUR_S


def make_old(layout: Layout, job: str, *, but: str | None = None, status: str = "") -> Path:
    folder, record = layout.jobs / job, layout.job_record(job)
    for below in ("input", "output"):
        (folder / below / "deep").mkdir(parents=True)
        (folder / below / "deep/f").write_bytes(b"young, but nobody looks so deep")
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"status": status}) if status else "not JSON")
    for path in (folder / "input", folder / "output", record, folder):
        if path.name != but:
            os.utime(path, (TWO_HOURS_AGO, TWO_HOURS_AGO))
    return folder


def upload(layout: Layout, job: str, sub_dir: str = "", content: bytes = b"new") -> None:
    part = UploadPart(layout)
    part.write([memoryview(content)])
    part.publish(Target(JobId(job), SubDir.parse(sub_dir), FileName("new")))


def test_a_job_that_nobody_touched_goes(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    old, unfinished = make_old(layout, "old"), make_old(layout, "done", status="done")
    assert sorted(expire_jobs(layout, HOUR_S)) == ["done", "old"]
    assert not old.exists()
    assert not unfinished.exists()
    assert list((layout.ours / "trash").iterdir()) == []
    assert expire_jobs(layout, HOUR_S) == []


@pytest.mark.parametrize("touched", ["input", "output", "kept.json", "kept"])
def test_a_job_of_which_one_of_four_is_young_stays(tmp_path: Path, touched: str) -> None:
    layout = Layout(tmp_path)
    kept = make_old(layout, "kept", but=touched)
    assert expire_jobs(layout, HOUR_S) == []
    assert (kept / "input/deep/f").exists()


def at_work(layout: Layout, job: str, status: str) -> Path:
    folder, path = make_old(layout, job), layout.job_record(job)
    record = JobRecord(
        run="r",
        worker="w",
        form=Form.GRAPH,
        workflow=None,
        graph={},
        created_at=now(),
        status=Status(status),
    )
    path.write_text(record.model_dump_json())
    os.utime(path, (TWO_HOURS_AGO, TWO_HOURS_AGO))
    return folder


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_job_at_work_stays_however_old(tmp_path: Path, status: str) -> None:
    layout = Layout(tmp_path)
    kept = at_work(layout, "kept", status)
    heart = beat_for(layout, "w")
    assert expire_jobs(layout, HOUR_S) == []
    heart.end()
    assert kept.exists()


def test_a_job_of_a_worker_that_is_gone_goes(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    at_work(layout, "stopped", "running")
    beat_for(layout, "w").end()
    assert expire_jobs(layout, HOUR_S) == ["stopped"]
    at_work(layout, "silent", "queued")
    os.utime(layout.workers / "w.json", (TWO_HOURS_AGO, TWO_HOURS_AGO))
    assert expire_jobs(layout, HOUR_S) == ["silent"]


def test_what_is_no_job_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "volume")
    outside = make_old(Layout(tmp_path / "elsewhere"), "job")
    layout.jobs.mkdir(parents=True)
    (layout.jobs / "link").symlink_to(outside)
    (layout.jobs / "file").write_bytes(b"")
    os.utime(layout.jobs / "file", (0, 0))
    for name in ("_not-an-id", "checkpoints"):
        make_old(layout, name)
    assert expire_jobs(layout, HOUR_S) == []
    assert {path.name for path in layout.jobs.iterdir()} == {
        "link",
        "file",
        "_not-an-id",
        "checkpoints",
    }
    assert (outside / "input").exists()


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 * 10**9)


ODD: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: (path / "below").mkdir(parents=True),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to a record": lambda path: path.symlink_to("old.json"),
    "a FIFO": os.mkfifo,
    "a sparse file of 3 GB": make_sparse,
    "any bytes": lambda path: path.write_bytes(bytes(range(256))),
    "a worker that is a path": lambda path: path.write_text('{"run": "r", "worker": "../../x"}'),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_record_costs_its_own_job_alone_and_that_can_be_cleaned_up(
    tmp_path: Path, odd: str
) -> None:
    layout = Layout(tmp_path)
    make_old(layout, "job")
    record = layout.job_record("job")
    record.unlink()
    ODD[odd](record)
    make_old(layout, "old")
    os.utime(record, (TWO_HOURS_AGO, TWO_HOURS_AGO), follow_symlinks=False)

    assert JobStore(layout).read(JobId("job")) is None
    assert old_jobs(layout, HOUR_S) == ["job", "old"]
    assert expire_jobs(layout, HOUR_S) == ["job", "old"]
    assert list(layout.job_records.iterdir()) == []

    ODD[odd](record)
    assert remove_job(layout, JobId("job"))
    assert not os.path.lexists(record)


def test_an_old_record_whose_folder_is_gone_goes_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    shutil.rmtree(make_old(layout, "old"))
    assert expire_jobs(layout, HOUR_S) == ["old"]
    assert list(layout.job_records.iterdir()) == []


def test_an_upload_into_a_deep_folder_makes_the_job_young(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    folder = make_old(layout, "j")
    (folder / "input/a/b").mkdir(parents=True)
    os.utime(folder / "input", (TWO_HOURS_AGO, TWO_HOURS_AGO))
    upload(layout, "j", "a/b")
    assert expire_jobs(layout, HOUR_S) == []


def test_only_one_worker_sweeps(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    old = make_old(layout, "old")
    layout.locks.mkdir(parents=True)
    with (layout.locks / "jobs.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert expire_jobs(layout, HOUR_S) == []
        assert old.exists()
    assert expire_jobs(layout, HOUR_S) == ["old"]


def test_no_upload_that_was_answered_is_lost_to_a_sweep_at_the_same_moment(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path)
    stop = threading.Event()
    removed = 0

    def sweep() -> None:
        nonlocal removed
        while not stop.is_set():
            removed += len(expire_jobs(layout, HOUR_S))

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(300):
            make_old(layout, f"j{number}")
            upload(layout, f"j{number}", "deep" if number % 2 else "")
    finally:
        stop.set()
        sweeper.join()
    for number in range(300):
        below = "deep/new" if number % 2 else "new"
        assert (layout.jobs / f"j{number}/input" / below).read_bytes() == b"new"


def test_the_server_sweeps_when_it_starts(start: Callable[..., FileServer], tmp_path: Path) -> None:
    root = tmp_path / "ttl"
    old = make_old(Layout(root / "volume"), "old")
    young = make_old(Layout(root / "volume"), "young", but="output")
    server = start(root, env={"MORPHEUS_JOB_TTL_HOURS": "1.5"})
    wait_until(lambda: not old.exists())
    assert young.exists()
    wait_until(lambda: "removed 1 jobs untouched for 1.5 h: old" in server.log)


def test_without_being_asked_nothing_is_swept(
    start: Callable[..., FileServer], tmp_path: Path
) -> None:
    root = tmp_path / "no-ttl"
    old = make_old(Layout(root / "volume"), "old")
    abandoned = root / "volume/.morpheus/uploads/x.part"
    abandoned.parent.mkdir(parents=True)
    abandoned.write_bytes(b"")
    start(root)
    wait_until(lambda: not abandoned.exists())
    assert old.exists()


def test_on_moosefs_old_jobs_go_and_touched_ones_stay(moosefs: MooseFS) -> None:
    layout = Layout(moosefs.a / moosefs.fresh())
    make_old(layout, "old")
    make_old(layout, "touched", but="input")
    assert expire_jobs(layout, HOUR_S) == ["old"]


def test_old_jobs_free_a_volume_that_takes_no_file_more(tmp_path: Path) -> None:
    """Neither the sweep's lock can be made then, nor the trash."""
    with mounted(tmp_path / "disk", "nr_inodes=20") as disk:
        layout = Layout(disk)
        make_old(layout, "old")
        with suppress(OSError):
            for number in range(20):
                (disk / str(number)).touch()
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").touch()

        assert old_jobs(layout, HOUR_S) == ["old"]
        assert expire_jobs(layout, HOUR_S) == ["old"]
        assert list(layout.jobs.iterdir()) == []


SWEEP = """
import sys
from pathlib import Path
from morpheus_boot.jobs.removal import expire_jobs
from morpheus_boot.volume.layout import Layout
print(expire_jobs(Layout(Path(sys.argv[1])), 3600.0))
"""


def sweep_where_nothing_may_be_moved(shim: Shim, root: Path) -> subprocess.CompletedProcess[str]:
    env = shim.env(root=root, match="rename:trash", do="errno:EDQUOT")
    return subprocess.run(
        [sys.executable, "-c", SWEEP, root],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_old_jobs_free_a_volume_that_refuses_even_to_move_them_away(
    shim: Shim, tmp_path: Path
) -> None:
    layout = Layout(tmp_path)
    make_old(layout, "old")

    swept = sweep_where_nothing_may_be_moved(shim, tmp_path)

    assert swept.stdout == "['old']\n", swept.stderr
    assert list(layout.jobs.iterdir()) == []
