"""Looking for garbage beside workers that beat and file servers that clean up."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from morpheus_boot.cache.garbage import find_garbage, remove
from morpheus_boot.cache.lock import ModelLock, heartbeat_of
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.cache.turn import Turns
from morpheus_boot.jobs.expiry import expire_jobs
from morpheus_boot.layout import Layout
from morpheus_boot.publish import temporary_beside, write_whole

DAY_S: Final = 86_400.0


@contextmanager
def at_work(*works: Callable[[], None]) -> Iterator[None]:
    """Does each over and over, beside the test."""
    stopping = threading.Event()

    def repeat(work: Callable[[], None]) -> None:
        while not stopping.is_set():
            work()

    threads = [threading.Thread(target=repeat, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(30)


def test_what_others_remove_while_garbage_is_looked_for_is_no_error(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    cleaned = layout.ours / "trash" / "a-job"

    def beat() -> None:
        write_whole(heartbeat_of(layout.lock("a")), b"{}", durable=False)

    def clean_up() -> None:
        (cleaned / "input").mkdir(parents=True)
        shutil.rmtree(cleaned)

    with at_work(beat, clean_up):
        for _ in range(50):
            found = find_garbage(layout, ["a"], forgotten=())

            assert found == ()


def found_in(layout: Layout) -> list[Path]:
    return [g.path for g in find_garbage(layout, [], forgotten=())]


def make_file(path: Path, *, age_s: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_what_was_removed_leaves_no_new_garbage(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    make_file(layout.model("loras/old.safetensors"))
    worker = ModelLock("a", layout.lock("loras/other.safetensors"), "w", LockTimes())
    claim = worker.try_claim()
    assert claim is not None
    with claim:
        pass

    for garbage in find_garbage(layout, [], forgotten=()):
        assert remove(layout, garbage)

    assert found_in(layout) == []
    assert list(layout.locks.iterdir()) == []


def test_the_locks_of_what_is_no_model_are_no_garbage(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    expire_jobs(layout, DAY_S)
    with Turns(layout, "w", threading.Event(), LockTimes()).turn("nodes/a"):
        pass
    kept = make_file(layout.locks / "notes.txt")

    assert found_in(layout) == []
    assert kept.exists()
    assert layout.jobs_lock.exists()


def test_a_file_of_a_dead_writer_is_garbage_and_a_nodes_own_is_not(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for folder in (layout.records, layout.locks, layout.archives / "nodes"):
        make_file(temporary_beside(folder / "a.json"), age_s=2 * DAY_S)
        make_file(temporary_beside(folder / "b.json"))
    make_file(layout.node_cache / "models/.gitattributes", age_s=2 * DAY_S)
    make_file(temporary_beside(layout.node_cache / "models/a.json"), age_s=2 * DAY_S)
    make_file(layout.archives / ".notes.tmp", age_s=2 * DAY_S)

    found = found_in(layout)

    assert [path.parent for path in found] == [
        layout.archives / "nodes",
        layout.locks,
        layout.records,
    ]
    assert all(path.name.startswith(".a.json.") for path in found)
