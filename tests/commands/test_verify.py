"""``verify`` reads the cache again, and mends it."""

import os
from pathlib import Path

import pytest

from morpheus_boot.cache.records import Record, write_record
from morpheus_boot.volume.layout import Layout
from tests.boot.program import Site
from tests.commands.one_model import MODEL, WEIGHTS, cached, document
from tests.testbed.content import read_all, sha256, write_to
from tests.testbed.faults import Status
from tests.testbed.origin import Origin


def damage(site: Site) -> None:
    """One flipped byte, with name, size and mtime as they were."""
    before = cached(site).stat()
    with cached(site).open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(cached(site), ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_empty_cache_has_nothing_to_verify(site: Site) -> None:
    ended = site.run("verify")

    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert "nothing to verify" in ended.out


def test_one_flipped_byte_is_found_and_repaired(site: Site) -> None:
    assert site.run("fill").code == 0
    assert site.run("verify").code == 0
    damage(site)

    found = site.run("verify", "--json")
    assert found.code == 74
    assert document(found)["models"][0]["condition"] == "damaged"
    assert MODEL in found.err

    repaired = site.run("verify", "--repair")
    assert repaired.code == 0
    assert "repaired" in repaired.out
    assert cached(site).read_bytes() == read_all(WEIGHTS)
    assert site.run("verify").code == 0


def test_a_repair_that_fails_leaves_nothing_that_passes_for_whole(
    site: Site, origin: Origin
) -> None:
    assert site.run("fill").code == 0
    damage(site)
    origin.misbehave("/a.safetensors", Status(404))
    assert site.run("verify", "--repair").code == 69

    assert site.run("fill").code == 69
    assert site.run("verify").code == 74

    origin.behave()
    assert site.run("fill").code == 0
    assert cached(site).read_bytes() == read_all(WEIGHTS)


@pytest.fixture
def two_damaged(tmp_path: Path, origin: Origin) -> Site:
    """Two damaged models, the first of which can't be fetched any more."""
    entries = "".join(
        f"  - {{path: loras/{name}.safetensors, url: '{origin.serve(f'/{name}', WEIGHTS)}'}}\n"
        for name in ("a", "b")
    )
    site = Site(tmp_path, f"version: 1\nmodels:\n{entries}")
    assert site.run("fill").code == 0
    for name in ("a", "b"):
        os.truncate(site.volume / f"model_cache/loras/{name}.safetensors", 1_000_000)
    origin.misbehave("/a", Status(404))
    return site


@pytest.mark.parametrize("form", ["text", "json"])
def test_it_goes_on_after_a_model_that_it_cant_repair(two_damaged: Site, form: str) -> None:
    ended = two_damaged.run("verify", "--repair", *(["--json"] if form == "json" else []))

    assert ended.code == 69
    if form == "json":
        assert [m["condition"] for m in document(ended)["models"]] == ["damaged", "repaired"]
    else:
        assert [line.split()[:2] for line in ended.out.splitlines()] == [
            ["damaged", "loras/a.safetensors"],
            ["repaired", "loras/b.safetensors"],
        ]
    assert "not repaired: " in ended.out
    assert ended.err.count("ERROR") == 1


def test_the_others_are_read_where_one_cant_be(two_damaged: Site) -> None:
    unreadable = two_damaged.volume / "model_cache/loras/a.safetensors"
    unreadable.unlink()
    unreadable.symlink_to(unreadable)

    ended = two_damaged.run("verify")

    assert ended.code == 74
    assert [line.split()[0] for line in ended.out.splitlines()] == ["unreadable", "damaged"]
    assert "ELOOP" in ended.err


def test_what_to_do_with_what_models_yaml_does_not_name_is_said(two_damaged: Site) -> None:
    two_damaged.models = "version: 1\nmodels: []\n"

    ended = two_damaged.run("verify", "--repair")

    assert ended.code == 74
    assert ended.err.count("name it in models.yaml, or remove it") == 2


def test_what_lies_in_runpods_own_cache_is_read(tmp_path: Path) -> None:
    site = Site(tmp_path)
    file = write_to(WEIGHTS, site.volume / "huggingface-cache/hub/blob")
    record = Record(
        path=MODEL,
        origin="hf",
        etag=None,
        sha256=sha256(WEIGHTS),
        size_bytes=WEIGHTS.size_bytes,
        mtime_ns=1,
        recorded_at="",
        by="w",
        hub_file=str(file.relative_to(site.volume)),
    )
    write_record(Layout(site.volume), record)

    assert site.run("verify").out == f"whole      {MODEL}  {sha256(WEIGHTS)}\n"
