"""``fill`` as an operator runs it by hand."""

import os
import signal

import pytest

from tests.boot.program import Site
from tests.commands.one_model import MODEL, cached, name_another_origin
from tests.testbed.content import read_all, safetensors
from tests.testbed.faults import Gate, Status
from tests.testbed.hub import HubStandIn
from tests.testbed.origin import Origin
from tests.testbed.shim import Shim
from tests.wait import wait_until


def test_a_fill_that_is_interrupted_says_what_is_kept(site: Site, origin: Origin) -> None:
    gate = Gate(1_000_000)
    origin.misbehave("/a.safetensors", gate, after=1)

    with site.start("fill") as fill:
        gate.wait_reached(20)
        (part,) = (site.volume / ".morpheus" / "parts").glob("*.part")
        # It reads 256 KiB at once.
        wait_until(lambda: part.stat().st_blocks * 512 >= 700_000)
        assert fill.stop(signal.SIGINT) == 130

    assert "stopped; 786.4 kB of what was on its way are kept" in fill.log


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_what_keeps_nodes_off_the_hub_does_not_keep_a_fill_off_it(
    site: Site, hub: HubStandIn, variable: str
) -> None:
    hub.add("owner/repo", "m.safetensors", safetensors(1000))
    site.models = site.models.partition("models:")[0] + (
        f"models: [{{path: {MODEL}, huggingface: {{repo: owner/repo, file: m.safetensors}}}}]\n"
    )
    site.environ = {"HF_ENDPOINT": hub.url, variable: "1"}

    ended = site.run("fill", "--retry-for", "1")

    assert ended.code == 0, ended.err


@pytest.mark.parametrize("error", ["EOPNOTSUPP", "ENOLCK", "ENOSYS"])
@pytest.mark.parametrize("command", ["fill", "doctor"])
def test_a_volume_without_flock_is_named_as_that(
    site: Site, shim: Shim, command: str, error: str
) -> None:
    site.volume.mkdir(exist_ok=True)
    site.environ = shim.env(root=site.volume, match="flock:", do=f"errno:{error}")

    ended = site.run(command)

    assert "the volume knows no locks (flock)" in ended.err + ended.out


def test_a_failure_is_explained_once(site: Site, origin: Origin) -> None:
    origin.misbehave("/a.safetensors", Status(404))

    ended = site.run("fill")

    said = [line for line in ended.err.splitlines() if MODEL in line]
    assert [("answers 404" in line, "ERROR" in line) for line in said] == [
        (False, False),
        (True, True),
    ]


def test_a_replacement_that_does_not_fit_beside_the_old_model_names_replace_in_place(
    site: Site, origin: Origin
) -> None:
    site.environ = {"MORPHEUS_VOLUME_GB": "0.003"}
    assert site.run("fill").code == 0
    before, other = cached(site).read_bytes(), safetensors(1_900_000, seed=5)
    site.models = site.models.replace("/a.safetensors'", "/b.safetensors'")
    origin.serve("/b.safetensors", other)

    refused = site.run("fill")
    assert refused.code == 73
    assert "--replace-in-place" in refused.err
    assert cached(site).read_bytes() == before

    assert site.run("fill", "--replace-in-place").code == 0
    assert cached(site).read_bytes() == read_all(other)


@pytest.mark.parametrize("command", ["fill", "up"])
def test_an_endpoint_that_loses_the_check_does_not_stop_the_other_one(
    site: Site, origin: Origin, command: str
) -> None:
    first = site.models
    name_another_origin(site, origin)
    assert site.run(command).code == 65

    site.models = f"{first}  - {{path: loras/b.safetensors, url: '{origin.url}/b.safetensors'}}\n"
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-1"}

    assert site.run("fill").code == 0


def test_a_file_that_was_moved_with_its_volume_is_hashed_once(site: Site) -> None:
    assert site.run("fill").code == 0
    os.utime(cached(site), (1, 1))

    assert "hashed again" in site.run("fill").err
    assert "hashed again" not in site.run("fill").err
