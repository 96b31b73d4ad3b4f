"""A volume that is full, read-only or failing: named as what it is, nothing partial, and right once it is over.

On MooseFS an error may come only at fsync or close, so each error is tried at each step of a fill.
"""

import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from filelock import FileLock

from morpheus_boot.cache.lock.heartbeat import Heart
from morpheus_boot.cache.records import read_record
from morpheus_boot.errors import StorageFailed, VolumeFull
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.volume.layout import Layout
from tests.cache.fill_process import FillProcess, journalled_bytes
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import read_all, safetensors, sha256, write_to
from tests.testbed.faults import Gate, Trickling
from tests.testbed.mounts import bound, mounted
from tests.testbed.origin import Origin
from tests.testbed.shim import Shim
from tests.wait import wait_until

# As much as the transfer reads at once: five writes, each with its sync, and the fsync at the end.
SYNC_BYTES: Final = 256 * 1024
WEIGHTS: Final = safetensors(4 * SYNC_BYTES + 100)
RIGHT: Final = read_all(WEIGHTS)
PATH: Final = "checkpoints/a.safetensors"
NEVER_S: Final = 1000.0

FULL: Final = {
    "EDQUOT": "the volume's quota is used up",
    "ENOSPC": "no space is left on the volume",
}
FAILING: Final = {
    "EROFS": "the volume is read-only",
    "EIO": "the volume reports an I/O error",
    "ENXIO": "the volume's storage server is gone",
    "ESTALE": "the volume's file handle is stale",
}
STEPS: Final = {
    "lock": ("create:.lock", 1),
    "first heartbeat": ("write:.heartbeat", 1),
    "part": ("create:.part", 1),
    "journal": ("create:.journal", 1),
    "ftruncate": ("truncate:.part", 1),
    "write": ("write:.part", 3),
    "fdatasync": ("sync:.part", 3),
    "journal line": ("write:.journal", 3),
    "journal sync": ("sync:.journal", 3),
    "last fsync": ("sync:.part", 6),
    "close": ("close:.part", 1),
    "rename": ("rename:model_cache", 1),
    "folder sync": ("sync:model_cache", 1),
    "record write": ("write:records", 1),
    "record sync": ("sync:records", 1),
    "record rename": ("rename:records", 1),
}
# One table names the errors; how they are met differs only between a full volume and a failing one.
EVERY_ERROR_AT: Final = frozenset(
    {"ftruncate", "write", "fdatasync", "last fsync", "close", "rename", "record write"}
)
AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class Failing:
    """Volumes below ``folder``, each of which fails in a way of its own."""

    shim: Shim
    folder: Path

    def fill(self, origin: Origin, name: str) -> FillProcess:
        """A cold fill of the volume ``name``."""
        root = self.folder / name
        root.mkdir()
        wanted = model(PATH, origin.serve("/a", WEIGHTS))
        return FillProcess(root, (wanted,), sync_bytes=SYNC_BYTES, beat_s=NEVER_S)

    def fail(self, step: str, error: str) -> None:
        """Has a fill meet an error at a step and ever after, and then fills again."""
        match, since = STEPS[step]
        try:
            with Origin() as origin:
                fill = self.fill(origin, error)
                env = self.shim.env(root=fill.root, match=match, since=since, do=f"errno:{error}")
                done = fill.run(env=env)
                _assert_named(done, error)
                published = Layout(fill.root).model(PATH).exists()
                assert not (published and "removed again" in done.stderr)
                assert "--replace-in-place" not in done.stderr
                _fill_again(fill, origin, error)
        except BaseException as failure:
            failure.add_note(f"{error} at {step}")
            raise


def _assert_named(done: subprocess.CompletedProcess[str], error: str) -> None:
    assert done.returncode == (73 if error in FULL else 74), done.stderr
    assert {**FULL, **FAILING}[error] in done.stderr
    assert f"({error} at " in done.stderr


def _fill_again(fill: FillProcess, origin: Origin, error: str) -> None:
    layout = Layout(fill.root)
    published = layout.model(PATH).exists()
    assert not published or layout.model(PATH).read_bytes() == RIGHT
    if error in FULL:
        assert list(layout.parts.glob("*")) == []
    there = len(RIGHT) if published else journalled_bytes(layout)
    wait_until(lambda: origin.ledger.running == 0)
    before = origin.count().body_bytes

    Worker(fill.root, "worker-2").fill(*fill.models)

    assert layout.model(PATH).read_bytes() == RIGHT
    assert read_record(layout, PATH) is not None
    assert list(layout.parts.glob("*")) == []
    assert origin.count().body_bytes - before <= len(RIGHT) - there + 1


@pytest.fixture
def failing(shim: Shim, tmp_path: Path) -> Failing:
    return Failing(shim, tmp_path)


@pytest.mark.parametrize("step", STEPS)
def test_an_error_of_the_volume_is_named_and_the_next_fill_is_right(
    failing: Failing, step: str
) -> None:
    errors = [*FULL, *FAILING] if step in EVERY_ERROR_AT else ["EDQUOT", "EIO"]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda error: failing.fail(step, error), errors))


@pytest.mark.parametrize("step", ["write", "fdatasync"])
def test_no_journal_names_what_a_failed_sync_may_have_lost(
    failing: Failing, origin: Origin, step: str
) -> None:
    # A file system reports a lost page once: the sync after the failed one succeeds, and saves nothing.
    whole, once = failing.fill(origin, "whole"), failing.fill(origin, "once")
    log = failing.folder / "log"
    assert whole.run(env=failing.shim.env(root=whole.root, log=log)).returncode == 0
    op = STEPS[step][0].partition(":")[0]
    calls = [c for c in Shim.calls(log) if c.op == op and c.path.endswith(".part")]

    done = once.run(env=failing.shim.env(root=once.root, at=calls[2].index, do="errno:EIO"))

    assert done.returncode == 74
    assert journalled_bytes(Layout(once.root)) == 2 * SYNC_BYTES


def test_heartbeats_that_find_no_room_end_no_download(
    shim: Shim, origin: Origin, tmp_path: Path
) -> None:
    origin.misbehave("/a", Trickling(4 * MIB))
    root = tmp_path / "volume"
    root.mkdir()
    log = tmp_path / "log"
    fill = FillProcess(root, (model(PATH, origin.serve("/a", WEIGHTS)),), beat_s=0.01)
    env = shim.env(root=root, log=log, match="write:.heartbeat", since=2, do="errno:EDQUOT")

    done = fill.run(env=env)

    beats = [c for c in shim.calls(log) if c.op == "write" and "heartbeat" in c.path]
    assert len(beats) > 2
    assert done.returncode == 0, done.stderr
    assert Layout(root).model(PATH).read_bytes() == RIGHT


def test_a_part_that_can_not_be_read_back_is_named_while_the_rest_is_fetched(
    shim: Shim, origin: Origin, tmp_path: Path
) -> None:
    root = tmp_path / "volume"
    root.mkdir()
    fill = FillProcess(root, (model(PATH, origin.serve("/a", WEIGHTS)),), sync_bytes=SYNC_BYTES)
    killed = fill.run(env=shim.env(root=root, match="sync:.journal", since=3, do="kill-after"))
    assert killed.returncode == -signal.SIGKILL

    done = fill.run(env=shim.env(root=root, match="read:.part", do="errno:EIO"))

    assert done.returncode == 74, done.stderr
    assert "the volume reports an I/O error" in done.stderr


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of 8 MiB."""
    with mounted(tmp_path / "disk", "size=8m") as folder:
        yield folder


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


def test_a_read_only_volume_whose_models_are_all_there_needs_nothing(
    disk: Path, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    worker = Worker(disk)
    worker.fill(wanted)
    before = origin.count()

    with read_only(disk):
        assert worker.plan(wanted).work == ()
        (cached,) = worker.fill(wanted)

    assert cached.file.read_bytes() == RIGHT
    assert origin.count() == before


def test_a_model_that_a_read_only_volume_lacks_is_named(disk: Path, origin: Origin) -> None:
    there = model(PATH, origin.serve("/a", WEIGHTS))
    missing = model("loras/b.safetensors", origin.serve("/b", WEIGHTS))
    Worker(disk).fill(there)

    with read_only(disk), pytest.raises(StorageFailed) as caught:
        Worker(disk).fill(there, missing)

    assert caught.value.exit_code == 74
    assert "loras/b.safetensors: the volume is read-only (EROFS at " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_whole_file_without_a_record_is_used_on_a_read_only_volume(
    disk: Path, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    write_to(WEIGHTS, Layout(disk).model(PATH))

    with read_only(disk):
        (cached,) = Worker(disk).fill(wanted)

    assert cached.file.read_bytes() == RIGHT


def test_a_disk_that_jobs_fill_meanwhile_is_73_and_the_part_is_gone(
    disk: Path, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", safetensors(6 * MIB)))
    gate = Gate(2 * MIB)
    origin.misbehave("/a", gate, after=1, times=1)
    with FillProcess(disk, (wanted,), sync_bytes=SYNC_BYTES).running() as process:
        gate.wait_reached()
        (disk / "a-job").write_bytes(bytes(4 * MIB))
        gate.open()
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 73
    assert "no space is left on the volume (ENOSPC at " in errors
    # Else the free room that the error names, taken after that, would belie it.
    assert " MB that had come are removed again" in errors
    assert list(Layout(disk).parts.glob("*")) == []
    (disk / "another-job").write_bytes(bytes(3 * MIB))


def a_file(folder: Path) -> None:
    folder.write_text("not ours")


def a_dangling_link(folder: Path) -> None:
    folder.symlink_to("nowhere")


def a_link_to_another_file_system(folder: Path) -> None:
    folder.symlink_to("/dev/shm")


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (a_file, "a folder's name is taken (EEXIST at "),
        (a_dangling_link, "a folder's name is taken (EEXIST at "),
        (
            a_link_to_another_file_system,
            "it lies on another file system than the volume (EXDEV at ",
        ),
    ],
)
def test_what_is_in_the_way_of_a_models_folder_is_named_before_a_byte_is_fetched(
    tmp_path: Path, origin: Origin, put: Callable[[Path], None], said: str
) -> None:
    folder = Layout(tmp_path).model(PATH).parent
    folder.parent.mkdir()
    put(folder)

    with pytest.raises(StorageFailed) as caught:
        Worker(tmp_path).fill(model(PATH, origin.serve("/a", WEIGHTS)))

    assert f"{said}{folder})" in str(caught.value)
    assert origin.count().body_bytes <= 1


def test_a_models_folder_that_can_not_be_written_is_named_before_a_byte_is_fetched(
    disk: Path, origin: Origin
) -> None:
    folder = Layout(disk).model(PATH).parent
    folder.mkdir(parents=True)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        with pytest.raises(StorageFailed) as caught:
            Worker(disk).fill(model(PATH, origin.serve("/a", WEIGHTS)))
    finally:
        subprocess.run(["umount", folder], check=True)

    assert f"the volume is read-only (EROFS at {folder})" in str(caught.value)
    assert origin.count().body_bytes <= 1


def a_circle_of_links(layout: Layout) -> Path:
    layout.model_cache.mkdir()
    layout.model(PATH).parent.symlink_to(layout.model(PATH).parent.name)
    return layout.model(PATH)


def a_directory_for_a_record(layout: Layout) -> Path:
    layout.record(PATH).mkdir(parents=True)
    return layout.record(PATH)


@pytest.mark.parametrize("put", [a_circle_of_links, a_directory_for_a_record])
def test_a_path_that_is_wrong_for_one_model_stops_no_other(
    tmp_path: Path, origin: Origin, put: Callable[[Layout], Path]
) -> None:
    wrong = model(PATH, origin.serve("/a", WEIGHTS))
    right = model("vae/b.safetensors", origin.serve("/b", WEIGHTS))
    worker = Worker(tmp_path)
    named = put(worker.layout)

    assert [step.action for step in worker.plan(wrong, right).steps] == ["blocked", "fetch"]
    with pytest.raises(StorageFailed) as caught:
        worker.fill(wrong, right)

    assert caught.value.subject == PATH
    assert str(named) in caught.value.cause
    assert worker.layout.model("vae/b.safetensors").read_bytes() == RIGHT


def test_a_disk_that_is_known_to_be_too_small_is_73_before_a_byte_is_fetched(
    disk: Path, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", safetensors(12 * MIB)))

    with pytest.raises(VolumeFull, match=r"12\.6 MB are needed, 8\.\d MB are free"):
        Worker(disk).fill(wanted)

    assert origin.count().body_bytes <= 1


def test_an_old_file_that_turns_out_to_be_cut_off_is_replaced_in_place_where_both_do_not_fit(
    disk: Path, origin: Origin
) -> None:
    content = safetensors(6 * MIB)
    wanted = model(PATH, origin.serve("/a", content))
    worker = Worker(disk)
    final = worker.layout.model(PATH)
    final.parent.mkdir(parents=True)
    final.write_bytes(read_all(content)[: 5 * MIB])

    with pytest.raises(VolumeFull, match="--replace-in-place"):
        worker.fill(wanted)
    assert final.stat().st_size == 5 * MIB

    replace(worker, options=replace(worker.options, replace_in_place=True)).fill(wanted)
    assert final.read_bytes() == read_all(content)


LARGE: Final = safetensors(6 * MIB)


@contextmanager
def half_filled(disk: Path, origin: Origin, wanted: ModelSpec) -> Iterator[subprocess.Popen[str]]:
    """A fill that has 4 MiB at least of LARGE's six, and waits for more: the disk has room for one part alone."""
    gate = Gate(5 * MIB)
    origin.misbehave("/a", gate, after=1, times=1)
    with FillProcess(disk, (wanted,), sync_bytes=MIB).running() as process:
        gate.wait_reached()
        wait_until(lambda: journalled_bytes(Layout(disk)) >= 4 * MIB)
        yield process


def test_a_killed_fill_of_a_disk_with_room_for_one_is_resumed(disk: Path, origin: Origin) -> None:
    wanted = model(PATH, origin.serve("/a", LARGE))
    with half_filled(disk, origin, wanted) as process:
        process.kill()

    Worker(disk).fill(wanted)

    assert Layout(disk).model(PATH).read_bytes() == read_all(LARGE)


def test_a_takeover_that_finds_no_room_for_its_copy_leaves_no_part(
    disk: Path, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", LARGE), sha256=sha256(LARGE))
    with half_filled(disk, origin, wanted) as silent:
        silent.send_signal(signal.SIGSTOP)

        with pytest.raises(VolumeFull):
            Worker(disk, "worker-2", size_bytes=10**12).fill(wanted)

        assert list(Layout(disk).parts.glob("*")) == []


def test_a_part_that_has_no_room_beside_its_copy_is_begun_anew(disk: Path, origin: Origin) -> None:
    wanted = model(PATH, origin.serve("/a", LARGE))
    with half_filled(disk, origin, wanted) as process:
        process.kill()

    # MooseFS keeps the lock of a host that is lost.
    with FileLock(Layout(disk).lock(PATH)):
        Worker(disk, "worker-2").fill(wanted)

    assert Layout(disk).model(PATH).read_bytes() == read_all(LARGE)
    assert list(Layout(disk).parts.glob("*")) == []


def test_a_volume_that_is_unmounted_while_it_fills_gets_nothing_on_its_mount_point(
    disk: Path, origin: Origin, tmp_path: Path
) -> None:
    models = [
        model(f"loras/{name}.safetensors", origin.serve(f"/{name}", WEIGHTS)) for name in "ab"
    ]
    gate = Gate(SYNC_BYTES)
    origin.misbehave("/a", gate, after=1, times=1)
    point = tmp_path / "volume"
    point.mkdir()
    with ExitStack() as mount:
        mount.enter_context(bound(disk, point))
        with FillProcess(point, tuple(models), sync_bytes=SYNC_BYTES).running() as process:
            gate.wait_reached()
            mount.close()
            gate.open()
            _, errors = process.communicate(timeout=30)

    assert process.returncode == 74, errors
    assert "it is not mounted any more" in errors
    assert list(point.iterdir()) == []


def test_a_heartbeat_leaves_no_sign_on_a_bare_mount_point(disk: Path, tmp_path: Path) -> None:
    point = tmp_path / "volume"
    point.mkdir()
    file = point / ".morpheus/workers/w.json"
    with bound(disk, point):
        heart = Heart(file, "w", 0.02)
        first = file.read_bytes()
        wait_until(lambda: file.read_bytes() != first)
    wait_until(lambda: list(point.iterdir()) == [])
    with bound(disk, point):
        last = file.read_bytes()
        wait_until(lambda: file.read_bytes() != last)
        heart.end()
    assert list(point.iterdir()) == []
