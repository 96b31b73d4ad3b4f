"""What nodes require: who loses where it can't be met, and nothing of it in ComfyUI's own Python."""

import subprocess
from pathlib import Path

import pytest

from morpheus_boot.errors import ManifestError, OriginUnavailable
from tests.custom_nodes.wheels import offer, unbuildable, wheel
from tests.custom_nodes.world import World
from tests.package_index import package_index


def state_of(python: Path) -> tuple[str, set[Path]]:
    """What ``pip list`` says, and every file of the environment."""
    ended = subprocess.run(
        [python, "-B", "-m", "pip", "list", "--disable-pip-version-check", "--no-cache-dir"],
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout, set(python.parent.parent.rglob("*"))


def test_nodes_that_disagree_with_each_other_and_with_comfyui_lose_by_name_and_nothing_else_changes(
    world: World,
) -> None:
    offer(
        world.index,
        wheel("shapely", "1.0"),
        wheel("shapely", "2.0"),
        wheel("tracker", "3.0", ("shapely>=2", "numpy>=1")),
        wheel("numpy", "1.26.0"),
    )
    nodes = (
        world.node("Old", {"requirements.txt": "numpy<2\n"}, required=False),
        world.node("Second", {"requirements.txt": "shapely<2\n"}, required=False),
        world.node("First", {"requirements.txt": "tracker\nnumpy\n"}),
    )
    before = state_of(world.comfyui.python)

    prepared = world.prepare(*nodes)

    assert state_of(world.comfyui.python) == before
    assert list((world.comfyui.folder / "custom_nodes").iterdir()) == []
    reasons = {loser.name: loser.reason for loser in prepared.nodes.left_out}
    assert set(reasons) == {"Old", "Second"}
    assert reasons["Old"] == "it asks for numpy<2, ComfyUI's Python holds numpy 2.4.6"
    assert "Second asks for shapely<2" in reasons["Second"]
    assert "tracker 3.0 depends on shapely>=2" in reasons["Second"]
    code = "import shapely, tracker, numpy; print(shapely.VERSION, tracker.VERSION, numpy.VERSION)"
    assert world.run(prepared, code) == "2.0 3.0 2.4.6"
    assert prepared.names == ["First"]
    assert sorted(p.name for p in prepared.folder.iterdir()) == [
        "First",
        "Old.disabled",
        "Second.disabled",
    ]


def test_a_required_node_that_disagrees_with_comfyui_stops_the_boot_and_names_both_sides(
    world: World,
) -> None:
    node = world.node("Old", {"requirements.txt": "numpy<2\n"})

    with pytest.raises(
        ManifestError, match=r"custom node Old: .*asks for numpy<2, .* holds numpy 2\.4\.6; take"
    ):
        world.prepare(node)

    assert world.index.asked == []


def test_what_a_package_needs_of_comfyuis_python_is_held_against_it_too(world: World) -> None:
    offer(world.index, wheel("tracker", "3.0", ("numpy<2",)), wheel("numpy", "1.26.0"))
    node = world.node("Deep", {"requirements.txt": "tracker\n"})

    with pytest.raises(ManifestError) as caught:
        world.prepare(node)

    assert "tracker 3.0 depends on numpy<2" in caught.value.cause
    assert "ComfyUI's Python holds numpy==2.4.6" in caught.value.cause


def test_packages_come_behind_comfyuis_own_and_another_sitecustomize_still_runs(
    world: World, tmp_path: Path
) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    prepared = world.prepare(world.node("First", {"requirements.txt": "tracker\n"}))
    assert prepared.python_path
    assert prepared.nodes.site
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text("import sys\nsys.other_ran = 1\n")
    (prepared.nodes.site / "numpy.py").write_text("VERSION = 'shadow'\n")
    (prepared.nodes.site / "more.pth").write_text("import sys; sys.pth_ran = 1\n")

    code = f"""
import importlib.metadata, sys, numpy
print(sys.path[-1], numpy.VERSION, sys.other_ran, sys.pth_ran)
print(importlib.metadata.version("tracker"), {str(prepared.python_path)!r} in sys.path)
"""

    said = subprocess.run(
        [world.comfyui.python, "-c", code],
        env={"PYTHONPATH": f"{prepared.python_path}:{tmp_path / 'other'}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert said == [str(prepared.nodes.site), "2.4.6", "1", "1", "3.0", "False"]


def test_a_node_whose_package_has_no_wheel_and_cannot_be_built_is_left_out(world: World) -> None:
    offer(world.index, unbuildable("insight"), wheel("tracker", "3.0", ("insight",)))
    offer(world.index, wheel("fine", "1.0"))
    nodes = (
        world.node("Deep", {"requirements.txt": "tracker\n"}, required=False),
        world.node("Fine", {"requirements.txt": "fine\n"}, required=False),
    )

    prepared = world.prepare(*nodes)

    assert [loser.name for loser in prepared.nodes.left_out] == ["Deep"]
    assert "insight has no wheel, and building it fails" in prepared.nodes.left_out[0].reason
    assert world.run(prepared, "import fine; print(fine.VERSION)") == "1.0"
    assert "ModuleNotFoundError" in world.run(prepared, "import tracker")


def test_an_older_wheel_comes_before_a_newer_source_that_needs_a_compiler(world: World) -> None:
    offer(world.index, wheel("insight", "0.9"), unbuildable("insight"))

    prepared = world.prepare(world.node("First", {"requirements.txt": "insight\n"}))

    assert world.run(prepared, "import insight; print(insight.VERSION)") == "0.9"


def test_an_index_that_is_away_costs_a_node_that_is_not_required_one_boot(world: World) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    url = world.environ["PIP_INDEX_URL"]
    files = {"requirements.txt": "tracker\n"}
    world.environ["PIP_INDEX_URL"] = "http://127.0.0.1:9/simple"

    prepared = world.prepare(world.node("Extra", files, required=False))

    assert [loser.name for loser in prepared.nodes.left_out] == ["Extra"]
    assert "package index can't be reached" in prepared.nodes.left_out[0].reason
    with pytest.raises(OriginUnavailable, match="package index: can't be reached"):
        world.prepare(world.node("Needed", files))
    world.environ["PIP_INDEX_URL"] = url
    world.index.failures += [503] * 8
    assert (
        "can't be read"
        in world.prepare(world.node("Extra", files, required=False)).nodes.left_out[0].reason
    )
    world.index.failures.clear()
    assert world.prepare(world.node("Extra", files, required=False)).nodes.left_out == ()


def test_a_python_without_pip_gets_one_that_it_does_not_keep(
    world: World, pip_wheel: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([world.comfyui.python, "-m", "venv", "--without-pip", bare], check=True)
    with package_index(
        lambda index: index.add("pip", pip_wheel.name, pip_wheel.read_bytes())
    ) as index:
        offer(index, wheel("tracker", "3.0"))
        world.environ["PIP_INDEX_URL"] = index.url
        world.comfyui = type(world.comfyui)(world.comfyui.folder, bare / "bin" / "python")

        prepared = world.prepare(world.node("First", {"requirements.txt": "tracker\n"}))

    assert world.run(prepared, "import tracker; print(tracker.VERSION)") == "3.0"
    assert "No module named 'pip'" in world.run(prepared, "import pip")
    assert list((tmp_path / "local-a").rglob("*.whl")) == []
