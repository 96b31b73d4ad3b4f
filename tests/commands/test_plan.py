"""``plan`` says what ``up`` would meet, and what it would not: it warns where ``up`` goes on."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.boot.program import Ended, Site
from tests.testbed.content import safetensors
from tests.testbed.faults import Chunked, Gate, IgnoresRange, Status
from tests.testbed.mounts import mounted
from tests.testbed.origin import Origin
from tests.wait import wait_until

WEIGHTS = safetensors(2_000_000)
MODEL = "checkpoints/a.safetensors"
OPTIONAL = "loras/b.safetensors"


@pytest.fixture
def site(tmp_path: Path, origin: Origin) -> Site:
    """A site with one required model and one that is not."""
    urls = [origin.serve(f"/{name}.safetensors", WEIGHTS) for name in ("a", "b")]
    return Site(
        tmp_path,
        "version: 1\nmodels:\n"
        f"  - {{path: {MODEL}, url: '{urls[0]}'}}\n"
        f"  - {{path: {OPTIONAL}, url: '{urls[1]}', required: false}}\n",
    )


def document(ended: Ended) -> dict[str, Any]:
    parsed = json.loads(ended.out)
    assert isinstance(parsed, dict)
    return parsed


def warned(ended: Ended) -> list[str]:
    return [line for line in ended.err.splitlines() if "WARNING" in line]


def test_two_endpoints_that_contradict_each_other_are_65(site: Site) -> None:
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-1"}
    assert site.run("fill").code == 0
    site.models = site.models.replace("/a.safetensors'", "/b.safetensors'")
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-2"}

    ended = site.run("plan")

    assert ended.code == 65
    assert "endpoint-1" in ended.err


def test_what_is_wrong_with_a_model_that_is_not_required_is_a_warning(
    site: Site, origin: Origin
) -> None:
    origin.misbehave("/b.safetensors", Status(403))

    ended = site.run("plan", "--json")

    assert ended.code == 0
    assert OPTIONAL in "".join(warned(ended))
    assert OPTIONAL in document(ended)["warnings"][0]
    assert document(ended)["errors"] == []


def test_required_models_that_fit_without_the_others_are_0_with_a_warning(site: Site) -> None:
    site.environ = {"MORPHEUS_VOLUME_GB": "0.003"}

    ended = site.run("plan", "--json")

    assert ended.code == 0
    assert "models that are not required: 4.0 MB are needed, 3.0 MB are free" in ended.err
    assert document(ended)["fits"] is False


def test_a_full_cache_on_a_volume_that_is_said_to_be_smaller_is_0_with_a_warning(
    site: Site,
) -> None:
    assert site.run("fill").code == 0
    site.environ = {"MORPHEUS_VOLUME_GB": "0.003"}

    ended = site.run("plan")

    assert ended.code == site.run("fill").code == 0
    assert "correct MORPHEUS_VOLUME_GB" in "".join(warned(ended))


def test_a_read_only_volume_that_lacks_a_model_is_74(site: Site) -> None:
    with mounted(site.volume, "size=64m"):
        subprocess.run(["mount", "-o", "remount,ro", site.volume], check=True)

        ended = site.run("plan")

        assert ended.code == site.run("fill").code == 74
        assert f"the volume is read-only (EROFS at {site.volume})" in ended.err


def test_whether_models_of_unknown_size_fit_is_not_known(site: Site, origin: Origin) -> None:
    origin.misbehave("/b.safetensors", IgnoresRange(), Chunked())

    assert document(site.run("plan", "--json"))["fits"] is None


def test_a_volume_that_is_not_there_is_named_as_such(site: Site) -> None:
    assert site.run("plan").out.startswith(f"volume {site.volume} (not there yet)\n")
    site.volume.mkdir()
    assert site.run("plan").out.startswith(f"volume {site.volume}\n")


def test_a_volume_that_is_a_file_is_78(site: Site) -> None:
    site.volume.write_text("no directory")

    ended = site.run("plan")

    assert ended.code == 78
    assert f"{site.volume} is not a directory" in ended.err


def test_who_fetches_a_model_is_said_and_what_an_earlier_fill_has_left(
    site: Site, origin: Origin
) -> None:
    gate = Gate(1_500_000)
    origin.misbehave("/a.safetensors", gate, after=1)
    with site.start("fill") as fill:
        gate.wait_reached(20)
        said = wait_until(
            lambda: next(
                (m for m in document(site.run("plan", "--json"))["models"] if m["holder"]), False
            )
        )
        assert isinstance(said, dict)
        assert said["path"] == MODEL
        assert " fetches it and has " in site.run("plan").out
        fill.stop()
    origin.behave()

    model = document(site.run("plan", "--json"))["models"][0]
    assert model["holder"] is None
    assert 0 < model["kept_bytes"] <= 1_500_000
    assert " are kept from an earlier fill" in site.run("plan").out
