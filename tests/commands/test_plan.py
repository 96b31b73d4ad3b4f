"""``plan`` says what ``up`` would meet, and what it would not: it warns where ``up`` goes on."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boot.program import Ended, Site
from tests.commands.one_model import MODEL, WEIGHTS, cached, document, name_another_origin
from tests.testbed.faults import Chunked, Gate, IgnoresRange, Status
from tests.testbed.mounts import mounted
from tests.testbed.origin import Origin
from tests.wait import wait_until

OPTIONAL = "loras/b.safetensors"


@pytest.fixture
def optional(site: Site, origin: Origin) -> Site:
    """The site with a second model, which is not required."""
    url = origin.serve("/optional.safetensors", WEIGHTS)
    site.models += f"  - {{path: {OPTIONAL}, url: '{url}', required: false}}\n"
    return site


def warned(ended: Ended) -> str:
    return "".join(line for line in ended.err.splitlines() if "WARNING" in line)


def test_what_is_missing_is_said_and_nothing_is_changed(site: Site) -> None:
    ended = site.run("plan", "--json")

    assert ended.code == 0
    plan = document(ended)
    assert (plan["models"][0]["action"], plan["models"][0]["state"]) == ("fetch", "missing")
    assert plan["missing_bytes"] == WEIGHTS.size_bytes
    assert not site.volume.exists()


def refuse(_: Site, origin: Origin) -> None:
    origin.misbehave("/a.safetensors", Status(403))


def buy_too_little(site: Site, _: Origin) -> None:
    site.environ = {"MORPHEUS_VOLUME_GB": "0.001"}


def put_a_folder_in_the_way(site: Site, _: Origin) -> None:
    cached(site).mkdir(parents=True)


def put_a_file_in_the_volumes_place(site: Site, _: Origin) -> None:
    site.volume.write_text("no directory")


@pytest.mark.parametrize(
    ("prepare", "code", "said"),
    [
        (refuse, 77, MODEL),
        (buy_too_little, 73, "2.0 MB are needed, 1.0 MB are free: of 1.0 MB"),
        (put_a_folder_in_the_way, 74, "a directory has its name"),
        (put_a_file_in_the_volumes_place, 78, "is not a directory"),
        (name_another_origin, 65, "endpoint endpoint-1 from"),
    ],
)
def test_it_ends_with_the_error_that_a_fill_would_meet(
    site: Site, origin: Origin, prepare: Callable[[Site, Origin], None], code: int, said: str
) -> None:
    prepare(site, origin)
    sent_bytes = origin.count().body_bytes

    for ended in (site.run("plan"), site.run("fill")):
        assert ended.code == code
        assert said in ended.err
    assert origin.count().body_bytes - sent_bytes < 100  # what was asked, and the refusal


def test_a_read_only_volume_that_lacks_a_model_is_74(site: Site) -> None:
    with mounted(site.volume, "size=64m"):
        subprocess.run(["mount", "-o", "remount,ro", site.volume], check=True)

        ended = site.run("plan")

        assert ended.code == site.run("fill").code == 74
        assert f"the volume is read-only (EROFS at {site.volume})" in ended.err


def test_what_is_refused_is_named_in_the_order_of_models_yaml(
    tmp_path: Path, origin: Origin
) -> None:
    entries = ""
    for name, status in (("a", 404), ("b", 403), ("c", 404)):
        url = origin.serve(f"/{name}.safetensors", WEIGHTS)
        origin.misbehave(f"/{name}.safetensors", Status(status))
        entries += f"  - {{path: loras/{name}.safetensors, url: '{url}'}}\n"
    (tmp_path / "volume" / "model_cache" / "loras" / "b.safetensors").mkdir(parents=True)

    ended = Site(tmp_path, f"version: 1\nmodels:\n{entries}").run("plan")

    errors = [line for line in ended.err.splitlines() if "loras/" in line]
    assert [line.partition("loras/")[2][0] for line in errors] == ["a", "b", "c"]
    assert ended.code == 69


def test_what_is_wrong_with_a_model_that_is_not_required_is_a_warning(
    optional: Site, origin: Origin
) -> None:
    origin.misbehave("/optional.safetensors", Status(403))

    ended = optional.run("plan", "--json")

    assert ended.code == 0
    assert OPTIONAL in warned(ended)
    assert OPTIONAL in document(ended)["warnings"][0]
    assert document(ended)["errors"] == []


def test_required_models_that_fit_without_the_others_are_0_with_a_warning(optional: Site) -> None:
    optional.environ = {"MORPHEUS_VOLUME_GB": "0.003"}

    ended = optional.run("plan", "--json")

    assert ended.code == 0
    assert "models that are not required: 4.0 MB are needed, 3.0 MB are free" in warned(ended)
    assert document(ended)["fits"] is False


def test_a_full_cache_has_nothing_to_fetch_though_its_volume_is_said_to_be_smaller(
    site: Site,
) -> None:
    assert site.run("fill").code == 0
    site.environ = {"MORPHEUS_VOLUME_GB": "0.001"}

    ended = site.run("plan")

    assert ended.code == site.run("fill").code == 0
    assert "present" in ended.out
    assert "to fetch: 0 bytes;" in ended.out
    assert "correct MORPHEUS_VOLUME_GB" in warned(ended)


def test_whether_models_of_unknown_size_fit_is_not_known(optional: Site, origin: Origin) -> None:
    origin.misbehave("/optional.safetensors", IgnoresRange(), Chunked())

    assert document(optional.run("plan", "--json"))["fits"] is None


def test_a_volume_that_is_not_there_is_named_as_such(site: Site) -> None:
    assert site.run("plan").out.startswith(f"volume {site.volume} (not there yet)\n")
    site.volume.mkdir()
    assert site.run("plan").out.startswith(f"volume {site.volume}\n")


def test_who_fetches_a_model_is_said_and_what_an_earlier_fill_has_left(
    site: Site, origin: Origin
) -> None:
    gate = Gate(1_500_000)
    origin.misbehave("/a.safetensors", gate, after=1)
    with site.start("fill") as fill:
        gate.wait_reached(20)
        wait_until(lambda: document(site.run("plan", "--json"))["models"][0]["holder"] is not None)
        assert " fetches it and has " in site.run("plan").out
        fill.stop()
    origin.behave()

    model = document(site.run("plan", "--json"))["models"][0]
    assert model["holder"] is None
    assert 0 < model["kept_bytes"] <= 1_500_000
    assert " are kept from an earlier fill" in site.run("plan").out
