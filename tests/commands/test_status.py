"""``status`` shows how each model stands, the workers, and the boot of this container."""

import os

import pytest

from morpheus_boot.cache.lock.lock import ModelLock, heartbeat_of
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.volume.layout import Layout
from tests.boot.program import Site
from tests.commands.one_model import MODEL, WEIGHTS, cached, document
from tests.testbed.content import write_to
from tests.testbed.faults import Gate
from tests.testbed.origin import Origin
from tests.wait import wait_until


def test_who_fetches_is_shown_and_a_running_boot(site: Site, origin: Origin) -> None:
    gate = Gate(1_000_000)
    origin.misbehave("/a.safetensors", gate, after=1)
    with site.start("up"):
        gate.wait_reached(20)

        status = document(site.run("status", "--json"))

        assert status["models"][0]["state"] == "fetching"
        assert status["models"][0]["holder"]["worker"] == status["boot"]["worker"]
        assert status["boot"]["readiness"] == "starting"
        gate.open()


def test_how_large_a_model_is_that_is_fetched_is_said_once(site: Site) -> None:
    lock = Layout(site.volume).lock(MODEL)
    claim = ModelLock(MODEL, lock, "worker-1", LockTimes(beat_s=0.02)).try_claim()
    assert claim is not None
    with claim:
        claim.progress(1_000_000, 2_000_000)
        wait_until(lambda: b"2000000" in heartbeat_of(lock).read_bytes())

        (line,) = [one for one in site.run("status").out.splitlines() if MODEL in one]

    assert line.split() == f"fetching {MODEL} 2.0 MB worker-1 fetches it and has 1.0 MB".split()


def test_how_a_model_stands_is_said_and_the_workers_and_that_no_boot_runs(site: Site) -> None:
    def state() -> str:
        return str(document(site.run("status", "--json"))["models"][0]["state"])

    file = cached(site)
    states = {"nothing": state()}
    write_to(WEIGHTS, file)
    states["a file"] = state()
    assert site.run("fill").code == 0
    os.utime(file, (1, 1))
    states["moved with its volume"] = state()
    os.truncate(file, 10)
    states["cut"] = state()
    file.unlink()
    file.mkdir()
    status = document(site.run("status", "--json"))
    states["a directory"] = status["models"][0]["state"]
    assert len(status["workers"]) == 1
    assert status["boot"] is None

    assert states == {
        "nothing": "missing",
        "a file": "found",
        "moved with its volume": "present",
        "cut": "wrong",
        "a directory": "blocked",
    }


@pytest.mark.parametrize("command", ["status", "plan"])
def test_which_model_is_not_required_is_said(site: Site, command: str) -> None:
    assert "not required" not in site.run(command).out
    site.models = site.models.replace("}", ", required: false}")

    assert document(site.run(command, "--json"))["models"][0]["required"] is False
    assert "(not required)" in site.run(command).out


@pytest.mark.parametrize("command", ["gc", "status", "plan", "verify"])
def test_a_volume_that_is_not_there_is_not_made(site: Site, command: str) -> None:
    assert site.run(command).code == 0

    assert not site.volume.exists()
