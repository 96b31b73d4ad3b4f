"""Looking for garbage beside workers that beat and file servers that clean up."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from morpheus_boot.cache.garbage import find_garbage, remove
from morpheus_boot.cache.lock.lock import ModelLock, archive_lock, heartbeat_of
from morpheus_boot.cache.lock.workers import volume_time
from morpheus_boot.cache.manifests import Roots, leave_manifest, manifest_of
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.jobs.removal import expire_jobs
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.volume.layout import Layout, model_key
from morpheus_boot.volume.publish import temporary_beside, write_whole
from tests.cache.worker import model

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
            assert find_garbage(roots_of(layout), ["a"]) == ()


def roots_of(layout: Layout) -> Roots:
    return Roots(layout, volume_time(layout))


def found_in(layout: Layout, *own_paths: str) -> list[Path]:
    return [g.path for g in find_garbage(roots_of(layout), own_paths)]


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

    roots = roots_of(layout)
    for garbage in find_garbage(roots, []):
        assert remove(garbage, roots)

    assert found_in(layout) == []
    assert list(layout.locks.iterdir()) == []


def test_the_locks_of_what_is_no_model_are_no_garbage(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    expire_jobs(layout, DAY_S)
    with archive_lock(
        "nodes/a", layout=layout, worker="w", stopping=threading.Event(), times=LockTimes()
    ):
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


MODEL: Final = "loras/a.safetensors"


def wanted() -> ModelSpec:
    return model(MODEL, "https://origin.invalid/a")


def remove_all(layout: Layout, meanwhile: Callable[[], object]) -> list[Path]:
    """What is removed of what was found, where something happens between the two."""
    roots = roots_of(layout)
    found = find_garbage(roots, [])
    meanwhile()
    return [g.path for g in found if remove(g, roots)]


def test_a_model_that_an_endpoint_names_since_it_was_found_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    file = make_file(layout.model(MODEL))
    leave_manifest(layout, manifest_of("endpoint-1", "w", []))
    manifest = manifest_of("endpoint-1", "w", [wanted()])

    assert remove_all(layout, lambda: leave_manifest(layout, manifest)) == []
    assert file.exists()


def test_a_model_of_a_worker_that_comes_back_after_it_was_found_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    file = make_file(layout.model(MODEL))
    leave_manifest(layout, manifest_of("pod-1", "pod-1", [wanted()]))
    heartbeat = make_file(layout.workers / "pod-1.json", age_s=8 * DAY_S)

    assert remove_all(layout, lambda: make_file(heartbeat)) == []
    assert file.exists()
    assert found_in(layout) == []


def test_what_a_worker_is_at_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    held = make_file(layout.model(MODEL)), make_file(part_of(layout))
    claim = ModelLock("a", layout.lock(MODEL), "w", LockTimes()).try_claim()
    assert claim is not None
    with claim:
        assert remove_all(layout, lambda: None) == []
    assert all(path.exists() for path in held)


def part_of(layout: Layout) -> Path:
    return layout.parts / f"{model_key(MODEL)}.0a.part"


def test_a_part_of_a_model_that_is_named_is_kept_for_a_week(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    part = make_file(part_of(layout), age_s=7 * DAY_S - 60)
    assert found_in(layout, MODEL) == []
    assert found_in(layout) == [part]

    make_file(part, age_s=7 * DAY_S + 60)

    assert found_in(layout, MODEL) == [part]


def test_a_lock_of_a_model_that_nobody_names_is_garbage(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    lock = make_file(layout.lock(MODEL))

    assert found_in(layout, MODEL) == []
    assert found_in(layout) == [lock]


def test_a_worker_and_what_it_names_are_garbage_a_week_after_its_last_beat(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    file = make_file(layout.model(MODEL))
    leave_manifest(layout, manifest_of("pod-1", "pod-1", [wanted()]))
    heartbeat = make_file(layout.workers / "pod-1.json", age_s=7 * DAY_S - 60)
    assert found_in(layout) == []

    make_file(heartbeat, age_s=7 * DAY_S + 60)

    assert found_in(layout) == [file, heartbeat, layout.manifests / "pod-1.json"]


def test_an_endpoint_keeps_its_models_though_all_its_workers_are_gone(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    make_file(layout.model(MODEL))
    leave_manifest(layout, manifest_of("endpoint-1", "pod-1", [wanted()]))

    assert found_in(layout) == []


def test_ages_are_told_by_the_volumes_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    make_file(temporary_beside(layout.records / "a.json"))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    make_file(temporary_beside(layout.records / "b.json"))  # dated by this host, ages ago

    assert [path.name[:3] for path in found_in(layout)] == [".b."]
