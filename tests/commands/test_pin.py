"""``pin`` prints the same manifest with everything fixed in it."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from morpheus_boot.cache.records import read_record, write_record
from morpheus_boot.volume.layout import Layout
from tests.boot.program import Site
from tests.commands.one_model import MODEL, WEIGHTS
from tests.testbed.content import safetensors, sha256
from tests.testbed.faults import Status
from tests.testbed.hub import HubStandIn
from tests.testbed.origin import Origin


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    git(folder, "tag", "-a", "v1", "-m", "one")
    return folder


def test_pin_fills_in_digest_size_and_commits_and_keeps_the_comments(
    tmp_path: Path, hub: HubStandIn, repository: Path
) -> None:
    hub.add("owner/repo", "m.safetensors", WEIGHTS)
    commit = git(repository, "rev-parse", "HEAD")
    site = Site(
        tmp_path,
        "# the service's models\n"
        "version: 1\n"
        "models:\n"
        "  - path: loras/m.safetensors # the one that matters\n"
        "    huggingface: {repo: owner/repo, file: m.safetensors}\n"
        "custom_nodes:\n"
        f"  - {{name: Node, git: 'file://{repository}', ref: v1}}\n",
        environ={"HF_ENDPOINT": hub.url},
    )

    ended = site.run("pin")

    assert ended.code == 0, ended.err
    assert ended.out == (
        "# the service's models\n"
        "version: 1\n"
        "models:\n"
        "  - path: loras/m.safetensors # the one that matters\n"
        "    huggingface: {repo: owner/repo, file: m.safetensors, revision: "
        f"{hub.commit('owner/repo')}}}\n"
        f"    sha256: {sha256(WEIGHTS)}\n"
        f"    size: {WEIGHTS.size_bytes}\n"
        "custom_nodes:\n"
        f"  - {{name: Node, git: 'file://{repository}', ref: {commit}}}\n"
    )


def test_write_puts_it_into_the_files_place_with_its_variables_as_they_were(
    tmp_path: Path, origin: Origin
) -> None:
    origin.serve("/m.safetensors", WEIGHTS)
    models = (
        "version: 1\nmodels:\n  - path: loras/${KIND}.safetensors\n    url: ${BASE}/m.safetensors\n"
    )
    site = Site(tmp_path, models, environ={"KIND": "sdxl", "BASE": origin.url})
    file = tmp_path / "the file itself.yaml"
    file.touch(0o640)
    (tmp_path / "models.yaml").symlink_to(file)

    ended = site.run("pin", "--write")

    assert (ended.code, ended.out) == (0, "")
    assert (tmp_path / "models.yaml").is_symlink()
    assert file.read_text() == f"{models}    size: {WEIGHTS.size_bytes}\n"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_branch_is_not_mistaken_for_one_whose_name_ends_like_it(
    tmp_path: Path, repository: Path
) -> None:
    commit = git(repository, "rev-parse", "main")
    git(repository, "checkout", "-q", "-b", "work/main")
    git(repository, "commit", "-q", "--allow-empty", "-m", "two")
    node = f"{{name: Node, git: 'file://{repository}', ref: main}}"
    site = Site(tmp_path, f"version: 1\ncustom_nodes:\n  - {node}\n")

    ended = site.run("pin")

    assert f"ref: {commit}" in ended.out, ended.err


def test_a_digest_that_its_origin_does_not_name_comes_from_the_filled_cache(site: Site) -> None:
    assert "fill the cache first" in site.run("pin").err
    assert site.run("fill").code == 0
    assert sha256(WEIGHTS) in site.run("pin").out

    record = read_record(Layout(site.volume), MODEL)
    assert record is not None
    write_record(Layout(site.volume), replace(record, damaged=True))

    assert "sha256" not in site.run("pin").out


def test_the_digest_of_what_the_origin_has_no_more_is_not_pinned(
    site: Site, origin: Origin
) -> None:
    assert site.run("fill").code == 0
    for other in (safetensors(WEIGHTS.size_bytes, seed=2), safetensors(100_512)):
        origin.serve("/a.safetensors", other)

        ended = site.run("pin")

        assert "sha256" not in ended.out
        assert f"size: {other.size_bytes}" in ended.out
        assert "fill the cache first" in ended.err


def test_the_first_failure_ends_it_and_nothing_is_printed(site: Site, origin: Origin) -> None:
    origin.misbehave("/a.safetensors", Status(404))

    ended = site.run("pin")

    assert (ended.code, ended.out) == (69, "")
    assert MODEL in ended.err
