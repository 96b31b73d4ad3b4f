"""What endpoints and workers leave on the volume: whose models contradict each other, and whose are kept."""

import os
import time
from pathlib import Path
from typing import Final

import pytest

from morpheus_boot.cache.lock.workers import beat_for
from morpheus_boot.cache.manifests import leave_manifest, manifest_of, require_no_conflict
from morpheus_boot.errors import ManifestError
from morpheus_boot.volume.layout import Layout
from tests.cache.worker import model

PATH: Final = "checkpoints/a.safetensors"
DAY_S: Final = 86_400.0
HERE: Final = model(PATH, "https://here.invalid/a")
ELSEWHERE: Final = model(PATH, "https://elsewhere.invalid/a")
OURS: Final = manifest_of("endpoint-1", "worker-1", [HERE])


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def leave(layout: Layout, endpoint: str, worker: str) -> None:
    """The manifest of one that takes our model from elsewhere."""
    leave_manifest(layout, manifest_of(endpoint, worker, [ELSEWHERE]))


def beat(layout: Layout, worker: str, *, age_s: float = 0.0, ended: bool = False) -> None:
    """A worker's last sign of life."""
    heart = beat_for(layout, worker)
    path = layout.workers / f"{worker}.json"
    alive = path.read_bytes()
    heart.end()
    if not ended:
        path.write_bytes(alive)
    os.utime(path, (time.time() - age_s,) * 2)


def test_an_endpoint_conflicts_whether_or_not_a_worker_of_it_lives(layout: Layout) -> None:
    leave(layout, "endpoint-2", "worker-2")

    with pytest.raises(ManifestError, match="endpoint-2"):
        require_no_conflict(layout, OURS)


def test_a_worker_without_an_endpoint_conflicts_while_it_lives(layout: Layout) -> None:
    leave(layout, "worker-2", "worker-2")
    beat(layout, "worker-2", age_s=DAY_S - 60)

    with pytest.raises(ManifestError, match="worker-2"):
        require_no_conflict(layout, OURS)


def test_a_worker_that_was_silent_for_a_day_conflicts_no_more(layout: Layout) -> None:
    leave(layout, "worker-2", "worker-2")
    beat(layout, "worker-2", age_s=DAY_S + 60)

    require_no_conflict(layout, OURS)


def test_a_worker_that_ended_in_good_order_conflicts_no_more(layout: Layout) -> None:
    leave(layout, "worker-2", "worker-2")
    beat(layout, "worker-2", ended=True)

    require_no_conflict(layout, OURS)


def test_a_manifest_that_cant_be_read_stops_no_other_endpoint(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    leave(layout, "endpoint-2", "worker-2")
    (layout.manifests / "endpoint-0.json").write_text("[]")

    with pytest.raises(ManifestError, match="endpoint-2"):
        require_no_conflict(layout, OURS)

    assert "endpoint-0.json" in caplog.text


def test_where_nothing_contradicts_the_volumes_clock_is_not_asked(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for worker in ("worker-2", "worker-3"):
        leave_manifest(layout, manifest_of(worker, worker, [HERE]))
        beat(layout, worker)
    monkeypatch.setattr(Path, "touch", lambda path: pytest.fail(f"{path} is made"))

    require_no_conflict(layout, OURS)
