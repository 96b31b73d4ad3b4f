"""Looking for garbage beside workers that beat and file servers that clean up."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from morpheus_boot.cache.garbage import find_garbage
from morpheus_boot.layout import Layout
from morpheus_boot.publish import write_whole


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
        write_whole(layout.locks / "a.heartbeat", b"{}", durable=False)

    def clean_up() -> None:
        (cleaned / "input").mkdir(parents=True)
        shutil.rmtree(cleaned)

    with at_work(beat, clean_up):
        for _ in range(50):
            found = find_garbage(layout, ["a"], forgotten=(), jobs_older_than_h=None)

            assert [g for g in found if g.kind != "lock"] == []
