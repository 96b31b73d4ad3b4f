"""A word in time where the models would take longer than RunPod waits for a worker."""

from pathlib import Path

import pytest

from morpheus_boot.cache import make_plan
from morpheus_boot.manifest import read_manifest
from morpheus_boot.queue import warn_of_long_fill
from morpheus_boot.volume.layout import Layout
from tests.boot.program import Site

MODEL = (
    "version: 1\nmodels: [{{path: loras/a.safetensors, url: 'http://127.0.0.1:9/a', size: {}}}]\n"
)


@pytest.mark.parametrize("endpoint", ["endpoint1", ""])
def test_an_endpoint_is_warned_with_both_mends_and_a_pod_is_not(
    tmp_path: Path, endpoint: str
) -> None:
    site = Site(tmp_path, MODEL.format(30 * 10**9), {"RUNPOD_ENDPOINT_ID": endpoint})

    log = site.run("up", "--retry-for", "0.1").err

    lines = [line for line in log.splitlines() if "RUNPOD_INIT_TIMEOUT" in line]
    assert len(lines) == (1 if endpoint else 0)
    for line in lines:
        assert "WARNING: 30.0 GB are missing" in line
        assert "420 s" in line
        assert "pod_start.sh fill" in line


@pytest.mark.parametrize(
    ("size_gb", "init_timeout_s", "warned"),
    [(22, None, True), (20, None, False), (22, 600, False), (32, 600, True)],
)
def test_what_runpod_waits_for_is_seven_minutes_or_what_was_set(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    size_gb: int,
    init_timeout_s: float | None,
    warned: bool,
) -> None:
    manifest = tmp_path / "models.yaml"
    manifest.write_text(MODEL.format(size_gb * 10**9))
    plan = make_plan(read_manifest(manifest, {}).models, Layout(tmp_path))

    warn_of_long_fill(plan.steps, init_timeout_s)

    assert ("RUNPOD_INIT_TIMEOUT" in caplog.text) is warned
