"""A word in time where the models would take longer than RunPod waits for a worker."""

from pathlib import Path

import pytest

from tests.boot.program import Site

ENDPOINT = {"RUNPOD_ENDPOINT_ID": "endpoint1"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, environ=ENDPOINT)


def boot_log(site: Site, size_bytes: int, *, required: bool = True) -> str:
    """What ``up`` says about a model that is missing, whose origin is not to be reached."""
    site.models = (
        "version: 1\nmodels:\n"
        f"  - {{path: loras/a.safetensors, url: 'http://127.0.0.1:9/a', size: {size_bytes},"
        f" required: {str(required).lower()}}}\n"
        "  - {path: loras/b.safetensors, url: 'http://127.0.0.1:9/b'}\n"
    )
    ended = site.run("up", "--retry-for", "0.1")
    assert ended.code in {69, 73}, ended.err
    return ended.err


def test_more_than_runpod_waits_for_is_a_warning_with_both_mends(site: Site) -> None:
    log = boot_log(site, 30 * 10**9)

    [line] = [line for line in log.splitlines() if "RUNPOD_INIT_TIMEOUT" in line]
    assert "WARNING" in line
    assert "30.0 GB are missing" in line
    assert "420 s" in line
    assert "pod_start.sh fill" in line


def test_what_fits_is_no_warning(site: Site) -> None:
    assert "RUNPOD_INIT_TIMEOUT" not in boot_log(site, 20 * 10**9)


def test_a_longer_init_timeout_is_taken_into_account(site: Site) -> None:
    site.environ = {**ENDPOINT, "RUNPOD_INIT_TIMEOUT": "900"}

    assert "RUNPOD_INIT_TIMEOUT" not in boot_log(site, 30 * 10**9)


def test_models_that_the_boot_does_not_wait_for_do_not_count(site: Site) -> None:
    assert "RUNPOD_INIT_TIMEOUT" not in boot_log(site, 30 * 10**9, required=False)


def test_a_pod_is_not_waited_for(site: Site) -> None:
    site.environ = {}

    assert "RUNPOD_INIT_TIMEOUT" not in boot_log(site, 30 * 10**9)
