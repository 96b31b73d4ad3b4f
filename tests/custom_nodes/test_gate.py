"""ComfyUI is started before the nodes have their packages, and waits at a gate."""

import pytest

from morpheus_boot.comfyui.custom_nodes import GatedNodes
from morpheus_boot.errors import ManifestError
from morpheus_boot.manifest import NodeSpec
from tests.custom_nodes.wheels import offer, wheel
from tests.custom_nodes.world import World


def gated(world: World, *nodes: NodeSpec) -> GatedNodes:
    return GatedNodes(
        nodes,
        world.preparation(),
        local=world.folder / "local-a",
        comfyui=world.comfyui.folder,
        user=world.folder / "local-a" / "user",
    )


def is_open(nodes: GatedNodes) -> bool:
    return nodes.gate is not None and nodes.gate.exists()


def test_the_gate_opens_when_the_packages_are_where_comfyui_was_told(world: World) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    nodes = gated(world, world.node("First", {"requirements.txt": "tracker\n"}))

    nodes.bring()

    assert [p.name for p in nodes.folders[0].iterdir()] == ["First"]
    assert nodes.packages
    assert not nodes.packages.exists()
    assert not is_open(nodes)
    nodes.provide()
    assert (nodes.packages / "tracker.py").exists()
    assert is_open(nodes)


def test_a_node_that_runs_before_comfyui_has_its_packages_before_it(world: World) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    files = {"requirements.txt": "tracker\n", "prestartup_script.py": "import tracker"}
    nodes = gated(world, world.node("First", files))

    nodes.bring()

    assert nodes.packages
    assert (nodes.packages / "tracker.py").exists()
    assert is_open(nodes)


def test_a_second_boot_of_one_container_closes_the_gate_again(world: World) -> None:
    node = world.node("First", {"requirements.txt": "numpy\n"})
    first = gated(world, node)
    first.bring()
    first.provide()

    second = gated(world, node)
    second.bring()

    assert not is_open(second)


def test_a_node_that_is_listed_no_more_is_gone_before_comfyui_starts(world: World) -> None:
    gone = world.node("Gone", {"prestartup_script.py": "raise SystemExit('it ran')"})
    gated(world, gone).bring()

    second = gated(world, world.node("First", {}))
    second.bring()

    assert [p.name for p in second.folders[0].iterdir()] == ["First"]


def test_the_gate_stays_shut_where_a_required_node_cannot_have_its_packages(world: World) -> None:
    nodes = gated(world, world.node("Old", {"requirements.txt": "numpy<2\n"}))
    nodes.bring()

    with pytest.raises(ManifestError, match="numpy<2"):
        nodes.provide()

    assert not is_open(nodes)


def test_no_nodes_are_no_work_and_no_gate(world: World) -> None:
    nodes = gated(world)

    nodes.bring()
    nodes.provide()

    assert (nodes.folders, nodes.gate, nodes.packages) == ((), None, None)
    assert not (world.folder / "local-a").exists()
