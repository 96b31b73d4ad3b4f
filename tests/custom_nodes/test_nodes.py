"""Custom nodes from the first worker to the second: pinned, kept as archives, without a network when warm."""

import dataclasses
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from morpheus_boot.comfyui.custom_nodes import CustomNodes
from morpheus_boot.errors import ManifestError, OriginUnavailable, SeveralErrors, StorageFailed
from morpheus_boot.start.package_index import index_url
from morpheus_boot.work.stopping import Stopped
from tests.custom_nodes.git_server import commit, git
from tests.custom_nodes.wheels import offer, telltale
from tests.custom_nodes.world import World
from tests.package_index import wheel
from tests.wait import wait_until


def test_a_second_worker_asks_nobody_and_needs_no_git(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    nodes = (
        world.node("First", {"requirements.txt": "tracker\n", "js/a.js": "1"}),
        world.node("Lost", {"requirements.txt": "numpy<2\n"}, required=False),
        world.node("Plain", {"a.py": "1"}, ref="main"),
    )
    first = world.prepare(*nodes, worker="a")
    asked = world.asked()
    (tmp_path / "no-git").mkdir()
    monkeypatch.setitem(world.environ, "PATH", str(tmp_path / "no-git"))
    monkeypatch.setenv("PATH", str(tmp_path / "no-git"))

    second = world.prepare(*nodes, worker="b")

    assert world.asked() == asked
    assert second.left_out == first.left_out != {}
    assert [tree.name for tree in second.trees] == ["First", "Plain"]
    assert (second.trees[0] / "js" / "a.js").read_text() == "1"
    assert list(second.trees[0].rglob(".git")) == []
    assert world.run(second, "import tracker; print(tracker.VERSION)") == "3.0"


def test_a_second_boot_of_one_container_leaves_what_a_node_has_put_beside_itself(
    world: World,
) -> None:
    node = world.node("First", {"a.py": "1"})
    (tree,) = world.prepare(node).trees
    (tree / "downloaded.pth").touch()

    assert world.prepare(node).trees == [tree]
    assert (tree / "downloaded.pth").exists()

    moved = world.node("First", {"a.py": "2"})
    (tree,) = world.prepare(moved).trees
    assert (tree / "a.py").read_text() == "2"
    assert not (tree / "downloaded.pth").exists()


def test_a_branch_means_what_it_meant_when_the_volume_first_had_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    node = world.node("First", {"a.py": "1"}, ref="main")
    world.prepare(node, worker="a")
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    commit(world.repositories.root / "First", {"a.py": "2"})

    second = world.prepare(node, worker="b")

    assert (second.trees[0] / "a.py").read_text() == "1"
    assert warning.startswith("First: ref 'main' may move; pin what it is here with ref: ")
    pinned = warning.rpartition(" ")[2]
    assert f"First-{pinned}.tar.gz" in world.archives


def test_a_damaged_archive_is_made_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    node = world.node("First", {"a.py": "1"})
    world.prepare(node, worker="a")
    (archive,) = world.layout.archives.rglob("*.tar.gz")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-20])

    prepared = world.prepare(node, worker="b")

    assert (prepared.trees[0] / "a.py").read_text() == "1"
    assert archive.read_bytes() == whole
    assert [r.levelno for r in caplog.records if r.levelno >= logging.WARNING] == [logging.WARNING]


def test_cold_workers_fetch_each_node_and_package_once(world: World) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    node = world.node("First", {"requirements.txt": "tracker\n"})
    world.prepare(node, worker="alone")
    alone = world.asked()
    for path in world.layout.archives.rglob("*.*"):
        path.unlink()

    with ThreadPoolExecutor() as pool:
        prepared = [*pool.map(lambda name: world.prepare(node, worker=name), "abc")]

    for worker in prepared:
        assert world.run(worker, "import tracker; print(tracker.VERSION)") == "3.0"
    assert world.asked() == 2 * alone


@pytest.mark.parametrize("others", [["There"], []])
def test_a_node_that_is_not_required_and_not_there_is_left_out(
    others: list[str], world: World
) -> None:
    gone = world.node("Gone", {}, required=False, ref="main")
    there = [world.node(name, {}) for name in others]
    world.repositories.root.joinpath("Gone").rename(world.folder / "elsewhere")

    prepared = world.prepare(gone, *there)

    assert [tree.name for tree in prepared.trees] == others
    assert set(prepared.left_out) == {"Gone"}
    assert prepared.left_out["Gone"].startswith("there is no repository at http://127.0.0.1:")


def test_what_builds_a_package_sees_no_token_and_git_may(world: World) -> None:
    world.environ |= {"HF_TOKEN": "hidden", "PIP_INDEX_PASSWORD": "x"}
    offer(world.index, telltale("leaky"))
    node = world.node("First", {"requirements.txt": "leaky\n"})

    prepared = world.prepare(node)

    assert world.run(prepared, "import leaky; print(leaky.SEEN)") == "None x"


def test_every_required_node_that_fails_is_named(world: World) -> None:
    nodes = [world.node(name, {}) for name in ("One", "Two", "Three")]
    for name in ("One", "Three"):
        world.repositories.root.joinpath(name).rename(world.folder / name)

    with pytest.raises(SeveralErrors, match=r"custom node One: .*\ncustom node Three: "):
        world.prepare(*nodes)


def test_a_node_that_is_listed_no_more_is_there_no_more(world: World) -> None:
    one, two = world.node("One", {}), world.node("Two", {})
    world.prepare(one, two)

    prepared = world.prepare(two)

    assert [p.name for p in prepared.folder.iterdir()] == ["Two"]


def test_what_is_not_run_and_what_is_loaded_twice_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    node = world.node("Big", {"install.py": "raise SystemExit('it ran')"})
    (world.comfyui.folder / "custom_nodes" / "Big").mkdir()

    world.prepare(node)

    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "Big: its install.py is not run; what it fetches or builds is missing",
        "Big: ComfyUI's own custom_nodes has one, too, and loads both",
    ]


def test_a_volume_that_takes_nothing_does_not_stop_the_boot(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.layout.root.mkdir()
    world.layout.ours.touch()  # where the folder would be
    offer(world.index, wheel("tracker", "3.0"))
    node = world.node("First", {"requirements.txt": "tracker\n"})

    prepared = world.prepare(node)

    assert world.run(prepared, "import tracker; print(tracker.VERSION)") == "3.0"
    not_kept = [r for r in caplog.records if "can't be kept on the volume" in r.getMessage()]
    assert len(not_kept) == 2


def test_a_local_folder_that_cannot_be_written_is_named_with_its_variable(world: World) -> None:
    node = world.node("First", {})
    (world.folder / "local-a").touch()

    with pytest.raises(StorageFailed, match="MORPHEUS_LOCAL_DIR"):
        world.prepare(node)


def test_a_link_that_leads_out_of_a_node_is_left_out(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (world.repositories.root / "Sly").mkdir()
    (world.repositories.root / "Sly" / "secrets").symlink_to("/etc/passwd")
    git(world.repositories.root / "Sly", "init", "--quiet", "--initial-branch=main")
    node = world.node("Sly", {})

    prepared = world.prepare(node)

    assert not (prepared.trees[0] / "secrets").is_symlink()
    assert "Sly: secrets leads out of it and is left out" in caplog.text


def test_a_stop_ends_the_preparation(world: World) -> None:
    node = world.node("First", {})
    world.repositories.gate.clear()
    ended: list[BaseException] = []

    def boot() -> None:
        try:
            world.prepare(node)
        except Stopped as stopped:
            ended.append(stopped)

    thread = threading.Thread(target=boot)
    thread.start()
    wait_until(lambda: bool(world.repositories.asked))
    world.stopping.set()
    thread.join(10)

    assert ended


def is_open(nodes: CustomNodes) -> bool:
    return nodes.gate is not None and nodes.gate.exists()


def test_requirements_that_ask_for_nothing_need_no_uv(world: World) -> None:
    (world.folder / "tools" / "uv").unlink()

    prepared = world.prepare(world.node("First", {"requirements.txt": "\n# numpy\n"}))

    assert (prepared.left_out, prepared.nodes.packages, world.index.asked) == ({}, None, [])


def test_the_gate_opens_when_the_packages_are_where_comfyui_was_told(world: World) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    nodes = world.boot(world.node("First", {"requirements.txt": "tracker\n"}))

    nodes.bring()

    assert [p.name for p in nodes.folders[0].iterdir()] == ["First"]
    assert nodes.packages
    assert not nodes.packages.exists()
    assert not is_open(nodes)
    nodes.provide()
    assert (nodes.packages / "tracker.py").exists()
    assert is_open(nodes)
    world.boot(world.node("First", {})).bring()
    assert not is_open(nodes)


def test_a_node_that_runs_before_comfyui_has_its_packages_before_it(world: World) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    files = {"requirements.txt": "tracker\n", "prestartup_script.py": "import tracker"}
    nodes = world.boot(world.node("First", files))

    nodes.bring()

    assert nodes.packages
    assert (nodes.packages / "tracker.py").exists()
    assert is_open(nodes)


def test_the_gate_stays_shut_where_a_required_node_cannot_have_its_packages(world: World) -> None:
    nodes = world.boot(world.node("Old", {"requirements.txt": "numpy<2\n"}))
    nodes.bring()

    with pytest.raises(ManifestError, match="numpy<2"):
        nodes.provide()

    assert not is_open(nodes)


def test_no_nodes_are_no_work_and_no_gate(world: World) -> None:
    nodes = world.boot()

    nodes.bring()
    nodes.provide()

    assert (nodes.folders, nodes.gate, nodes.packages) == ((), None, None)
    assert not (world.folder / "local-a").exists()


def test_an_image_without_uv_gets_one_that_the_volume_keeps(world: World) -> None:
    (world.folder / "tools" / "uv").unlink()
    offer(world.index, wheel("morphone", "1.0"), wheel("morphtwo", "1.0"))
    index = world.environ["PIP_INDEX_URL"]
    node = world.node("First", {"requirements.txt": "morphone\n"})

    with pytest.raises(OriginUnavailable, match=r"uv: the image has none, .* can't be read"):
        world.prepare(node)
    extra = world.prepare(dataclasses.replace(node, required=False), worker="c")
    assert extra.left_out["First"].startswith("uv: the image has none, ")
    world.environ["PIP_INDEX_URL"] = index_url(os.environ)
    world.environ["PIP_EXTRA_INDEX_URL"] = index
    world.prepare(node)

    assert [name for name in world.archives if name.startswith("uv-")]
    del world.environ["PIP_EXTRA_INDEX_URL"]
    world.environ["PIP_INDEX_URL"] = index
    prepared = world.prepare(world.node("First", {"requirements.txt": "morphtwo\n"}), worker="b")
    assert world.run(prepared, "import morphtwo; print(morphtwo.VERSION)") == "1.0"
