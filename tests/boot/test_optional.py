"""Models that the boot does not wait for: all at once, each linked as it comes, and none missed that is there."""

from pathlib import Path

import pytest

from morpheus_boot.cache import CachedModel, fill_what_fits
from morpheus_boot.errors import MorpheusError, VolumeFull
from morpheus_boot.manifest import ModelSpec
from tests.boot.program import Program, Site
from tests.cache.worker import Worker, model
from tests.testbed.content import safetensors
from tests.testbed.faults import Gate, Status
from tests.testbed.origin import Origin
from tests.wait import wait_until

SMALL = safetensors(300_000)
OPTIONAL = ("loras/a.safetensors", "loras/b.safetensors")


@pytest.fixture
def site(tmp_path: Path, origin: Origin) -> Site:
    """A site with one required model and two that are not."""
    site = Site(tmp_path)
    for path in ("vae/r.safetensors", *OPTIONAL):
        origin.serve(f"/{path}", SMALL)
    site.models = (
        "version: 1\nmodels:\n"
        f"  - {{path: vae/r.safetensors, url: '{origin.url}/vae/r.safetensors'}}\n"
    ) + "".join(
        f"  - {{path: {path}, url: '{origin.url}/{path}', required: false}}\n" for path in OPTIONAL
    )
    return site


def stages(up: Program) -> dict[str, str]:
    return {m["path"]: m["stage"] for m in up.get("/status").json()["models"]}


def linked(site: Site, path: str) -> bool:
    return (site.comfyui / "models" / path).exists()


def test_optional_models_come_together_and_each_is_linked_as_it_comes(
    site: Site, origin: Origin
) -> None:
    gates = [Gate(100_000), Gate(100_000)]
    for path, gate in zip(OPTIONAL, gates, strict=True):
        origin.misbehave(f"/{path}", gate, after=1)

    with site.start("up"):
        for gate in gates:
            gate.wait_reached(20)
        gates[1].open()
        wait_until(lambda: linked(site, OPTIONAL[1]))
        assert not linked(site, OPTIONAL[0])
        gates[0].open()
        wait_until(lambda: linked(site, OPTIONAL[0]))


def test_optional_models_that_another_worker_brought_in_since_the_plan_are_used(
    site: Site, origin: Origin
) -> None:
    # Room for all three, but not for the two a second time.
    site.environ = {"MORPHEUS_VOLUME_GB": "0.0011"}
    gate = Gate(100_000)
    origin.misbehave("/vae/r.safetensors", gate, after=1)

    with site.start("up") as up:
        gate.wait_reached(20)
        Worker(site.volume, "worker-2").fill(
            *(model(path, f"{origin.url}/{path}") for path in OPTIONAL)
        )
        asked = origin.count()
        gate.open()
        up.wait_until_ready()
        wait_until(lambda: all(linked(site, path) for path in OPTIONAL))
        wait_until(lambda: {*stages(up).values()} == {"present"})

        assert "left out" not in up.log
        assert origin.count().requests == asked.requests


def test_an_optional_model_that_fails_is_shown_as_failed_and_is_said_once(
    site: Site, origin: Origin
) -> None:
    origin.misbehave(f"/{OPTIONAL[0]}", Status(404))

    with site.start("up") as up:
        up.wait_until_ready()
        wait_until(lambda: linked(site, OPTIONAL[1]))
        wait_until(lambda: stages(up)[OPTIONAL[0]] == "failed")
        assert up.stop() == 0

    assert len([line for line in up.log.splitlines() if "answers 404" in line]) == 1


def outcomes_of(worker: Worker, *wanted: ModelSpec) -> list[CachedModel | MorpheusError]:
    """What comes of models that are not required, each in its turn."""
    return list(fill_what_fits(worker.plan(*wanted), worker.context))


def test_optional_models_that_do_not_all_fit_are_filled_as_far_as_they_do(
    tmp_path: Path, origin: Origin
) -> None:
    worker = Worker(tmp_path, size_bytes=int(2.5 * SMALL.size_bytes))
    wanted = [model(f"loras/{n}", origin.serve(f"/{n}", SMALL)) for n in ("a", "b", "c")]

    outcomes = outcomes_of(worker, *wanted)

    (full,) = (o for o in outcomes if isinstance(o, MorpheusError))
    assert isinstance(full, VolumeFull)
    assert full.subject == "loras/c"
    assert [path.name for path in sorted(worker.layout.model_cache.glob("*/*"))] == ["a", "b"]


def test_an_optional_model_that_is_blocked_or_does_not_fit_keeps_no_other_from_its_place(
    tmp_path: Path, origin: Origin
) -> None:
    worker = Worker(tmp_path, size_bytes=int(1.5 * SMALL.size_bytes))
    paths = ("loras/a", "loop/b", "loras/c")
    wanted = [model(path, origin.serve(f"/{path}", SMALL)) for path in paths]
    worker.fill(wanted[0])
    (worker.layout.model_cache / "loop").symlink_to("loop")

    outcomes = outcomes_of(worker, *wanted)

    assert [o.model.path for o in outcomes if isinstance(o, CachedModel)] == ["loras/a"]
    assert {o.subject for o in outcomes if isinstance(o, MorpheusError)} == {"loop/b", "loras/c"}
