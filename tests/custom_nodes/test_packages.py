"""What nodes require: who loses where it can't be met, and nothing of it in ComfyUI's own Python."""

import codecs
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from morpheus_boot.errors import ManifestError, OriginUnavailable
from tests.custom_nodes.git_server import git
from tests.custom_nodes.wheels import offer, project, unbuildable
from tests.custom_nodes.world import World
from tests.package_index import wheel


def state_of(python: Path) -> Mapping[Path, int]:
    """Every file of an environment, with its mtime."""
    return {path: path.stat().st_mtime_ns for path in python.parent.parent.rglob("*")}


def requirements_of(world: World, *lines: str, name: str = "First", required: bool = True) -> None:
    """Prepares one node that asks for ``lines``."""
    world.prepare(world.node(name, {"requirements.txt": "\n".join(lines)}, required=required))


def installed(world: World) -> list[str]:
    """The distributions beside ComfyUI's own that the node of worker a got."""
    return sorted(p.stem for p in world.folder.glob("local-a/nodes/site-*/packages/*.dist-info"))


def test_nodes_that_disagree_with_each_other_and_with_comfyui_lose_by_name_and_nothing_else_changes(
    world: World,
) -> None:
    offer(
        world.index,
        wheel("shapely", "1.0"),
        wheel("shapely", "2.0"),
        wheel("tracker", "3.0", ("shapely>=2", "numpy>=1", "torch>=2")),
        wheel("numpy", "1.26.0"),
        wheel("fine", "1.0"),
    )
    nodes = (
        world.node("Old", {"requirements.txt": "numpy<2\n"}, required=False),
        world.node("Second", {"requirements.txt": "shapely<2\n"}, required=False),
        world.node("Third", {"requirements.txt": "fine\n"}, required=False),
        world.node("First", {"requirements.txt": "tracker\nnumpy\n"}),
    )
    before = state_of(world.comfyui.python)

    prepared = world.prepare(*nodes)

    assert state_of(world.comfyui.python) == before
    assert list((world.comfyui.folder / "custom_nodes").iterdir()) == []
    assert set(prepared.left_out) == {"Old", "Second"}
    for name, sides in {
        "Old": ("beside those of First: ", "numpy<2", "numpy==2.4.6"),
        "Second": ("beside those of First: ", "shapely<2", "shapely>=2", "tracker"),
    }.items():
        assert [side for side in sides if side not in prepared.left_out[name]] == []
    code = "import shapely, tracker, numpy; print(shapely.VERSION, tracker.VERSION, numpy.VERSION)"
    assert world.run(prepared, code) == "2.0 3.0 2.4.6"
    assert world.run(prepared, "import fine; print(fine.VERSION)") == "1.0"
    assert [tree.name for tree in prepared.trees] == ["First", "Third"]


@pytest.mark.parametrize(
    ("lines", "sides"),
    [
        (["numpy<2"], "numpy<2 and numpy==2.4.6"),
        (["torch>=2.5"], "torch==2.4.0+cu124"),
        (["tracker"], "tracker depend on numpy<2"),
        (["fine", "tracker"], "tracker depend on numpy<2"),
        (["numpy", "fine at home"], "fine at home"),
        (["fine", "--frobnicate"], "requirements.txt:2:1"),
        (["-r nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_required_node_whose_requirements_cannot_be_met_ends_the_boot_in_uvs_own_words(
    lines: list[str], sides: str, world: World
) -> None:
    offer(world.index, wheel("tracker", "3.0", ("numpy<2",)), wheel("numpy", "1.26.0"))
    offer(world.index, wheel("fine", "1.0"), wheel("torch", "2.9"))

    with pytest.raises(ManifestError) as caught:
        requirements_of(world, *lines)

    assert caught.value.subject == "custom node First"
    assert caught.value.cause.startswith("its requirements can't be met: ")
    assert sides in caught.value.cause
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["numpy", "NumPy>=1.25", "torch==2.4.0"], []),
        (["torch>=2 ; python_version >= '3'", "fine; sys_platform == 'win32'"], []),
        (["torch[optree]"], ["optree-1.0"]),
        (["--pre", "--prefer-binary", "--trusted-host a.test", "fine"], ["fine-1.0"]),
        (["fine>=0.1,<2  # why"], ["fine-1.0"]),
        (["-r more.txt"], ["fine-1.0"]),
        (["INDEX/files/fine-1.0-py3-none-any.whl"], ["fine-1.0"]),
        (["INDEX/files/fine-1.0-py3-none-any.whl ; sys_platform == 'linux'"], ["fine-1.0"]),
        (["INDEX/files/fine-1.0-py3-none-any.whl ; sys_platform == 'win32'"], []),
        (["fine @ INDEX/files/fine-1.0-py3-none-any.whl"], ["fine-1.0"]),
        (["-i INDEX/other", "fine", "only"], ["fine-1.0", "only-1.0"]),
        (["git+REPOSITORIES/Packaged"], ["packaged-1.0"]),
        (["-e git+REPOSITORIES/Packaged#egg=packaged"], ["packaged-1.0"]),
        (["-e ."], ["packaged-1.0"]),
    ],
)
def test_requirements_are_read_as_they_are_written(
    lines: list[str], wanted: list[str], world: World
) -> None:
    offer(world.index, wheel("fine", "1.0"), wheel("optree", "1.0"))
    name, content = wheel("only", "1.0")
    world.index.files[f"/other/{name}"] = content
    world.index.files["/other/only/"] = f'<a href="../{name}">{name}</a>'.encode()
    text = "\n".join(lines).replace("INDEX", world.index.url.removesuffix("/simple"))
    files = {
        "requirements.txt": text.replace("REPOSITORIES", world.repositories.url),
        "more.txt": "fine",
        **project("packaged"),
    }
    world.node("Packaged", files)

    prepared = world.prepare(world.node("First", files))

    assert prepared.left_out == {}
    assert installed(world) == wanted
    assert world.run(prepared, "import torch; print(torch.VERSION)") == "2.4.0+cu124"


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + b"# a comment\r\nfine\r\n\r\n",
        "fine\r\n-r more.txt\r\n".encode("utf-16"),
    ],
)
def test_requirements_are_read_in_the_encodings_that_windows_writes(
    content: bytes, world: World
) -> None:
    offer(world.index, wheel("fine", "1.0"))
    (world.repositories.root / "First").mkdir()
    git(world.repositories.root / "First", "init", "--quiet", "--initial-branch=main")
    (world.repositories.root / "First" / "requirements.txt").write_bytes(content)

    prepared = world.prepare(world.node("First", {"more.txt": "numpy"}))

    assert world.run(prepared, "import fine; print(fine.VERSION)") == "1.0"


def test_packages_come_behind_comfyuis_own_and_another_sitecustomize_still_runs(
    world: World, tmp_path: Path
) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    prepared = world.prepare(world.node("First", {"requirements.txt": "tracker\n"}))
    packages = prepared.nodes.packages
    assert packages
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text("import sys\nsys.other_ran = 1\n")
    (packages / "numpy.py").write_text("VERSION = 'shadow'\n")
    (packages / "more.pth").write_text("import sys; sys.pth_ran = 1\n")

    code = f"""
import importlib.metadata, sys, numpy
print(sys.path[-1], numpy.VERSION, sys.other_ran, sys.pth_ran)
print(importlib.metadata.version("tracker"), {str(prepared.nodes.python_path)!r} in sys.path)
"""

    said = subprocess.run(
        [world.comfyui.python, "-c", code],
        env={"PYTHONPATH": f"{prepared.nodes.python_path}:{tmp_path / 'other'}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert said == [str(packages), "2.4.6", "1", "1", "3.0", "False"]


def test_a_node_whose_package_has_no_wheel_and_cannot_be_built_is_left_out(world: World) -> None:
    offer(world.index, unbuildable("insight"), wheel("tracker", "3.0", ("insight",)))
    offer(world.index, wheel("fine", "1.0"))
    nodes = (
        world.node("Deep", {"requirements.txt": "tracker\n"}, required=False),
        world.node("Fine", {"requirements.txt": "fine\n"}, required=False),
    )

    prepared = world.prepare(*nodes)

    assert set(prepared.left_out) == {"Deep"}
    assert "Failed to build `insight==1.0`" in prepared.left_out["Deep"]
    assert "command 'gcc' failed" in prepared.left_out["Deep"]
    assert world.run(prepared, "import fine; print(fine.VERSION)") == "1.0"
    assert "ModuleNotFoundError" in world.run(prepared, "import tracker")


def test_an_older_wheel_comes_before_a_newer_source_that_needs_a_compiler(world: World) -> None:
    offer(world.index, wheel("insight", "0.9"), unbuildable("insight"))

    prepared = world.prepare(world.node("First", {"requirements.txt": "insight\n"}))

    assert world.run(prepared, "import insight; print(insight.VERSION)") == "0.9"


@pytest.mark.parametrize("answer", [None, 503, 404])
def test_an_index_that_is_away_costs_a_node_that_is_not_required_one_boot(
    answer: int | None, world: World
) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    url = world.environ["PIP_INDEX_URL"]
    files = {"requirements.txt": "tracker\n"}
    if answer is None:
        world.environ["PIP_INDEX_URL"] = "http://127.0.0.1:9/simple"
    else:
        world.index.failures += [answer] * 50

    prepared = world.prepare(world.node("Extra", files, required=False))

    assert set(prepared.left_out) == {"Extra"}
    with pytest.raises(OriginUnavailable):
        world.prepare(world.node("Needed", files), worker="b")
    world.environ["PIP_INDEX_URL"] = url
    world.index.failures.clear()
    assert world.prepare(world.node("Extra", files, required=False)).left_out == {}


def test_a_source_that_is_away_costs_nothing_but_the_node_that_wants_it(world: World) -> None:
    offer(world.index, wheel("tracker", "3.0"))
    nodes = (
        world.node("Needed", {"requirements.txt": "tracker\n"}),
        world.node(
            "Extra",
            {"requirements.txt": "x @ http://127.0.0.1:9/x-1-py3-none-any.whl"},
            required=False,
        ),
    )

    prepared = world.prepare(*nodes)

    assert set(prepared.left_out) == {"Extra"}
    assert world.run(prepared, "import tracker; print(tracker.VERSION)") == "3.0"


@pytest.mark.parametrize("how", ["variables", "pip.conf", "the interpreter's pip.conf"])
def test_pips_own_settings_hold_for_uv(how: str, world: World, tmp_path: Path) -> None:
    offer(world.index, wheel("tracker", "3.0", ("fine", "insight")))
    for folder, (name, content) in {
        "a": wheel("fine", "1.0"),
        "b": wheel("insight", "0.9"),
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    (tmp_path / "constraints.txt").write_text("insight<1\n")
    settings = {
        "index-url": world.environ.pop("PIP_INDEX_URL"),
        "find-links": f"{tmp_path / 'a'} {tmp_path / 'b'}",
        "constraint": str(tmp_path / "constraints.txt"),
        "trusted-host": "127.0.0.1",
    }
    offer(world.index, wheel("insight", "1.0"))
    conf = "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())
    if how == "variables":
        for name, value in settings.items():
            world.environ[f"PIP_{name.upper().replace('-', '_')}"] = value
    elif how == "pip.conf":
        (tmp_path / "own.conf").write_text(conf)
        world.environ["PIP_CONFIG_FILE"] = str(tmp_path / "own.conf")
    else:
        del world.environ["PIP_CONFIG_FILE"]
        venv = tmp_path / "venv"
        subprocess.run([world.comfyui.python, "-m", "venv", "--without-pip", venv], check=True)
        (venv / "pip.conf").write_text(conf)
        world.comfyui = type(world.comfyui)(world.comfyui.folder, venv / "bin" / "python")

    prepared = world.prepare(world.node("First", {"requirements.txt": "tracker\n"}))

    code = "import fine, insight, tracker; print(fine.VERSION, insight.VERSION, tracker.VERSION)"
    assert world.run(prepared, code) == "1.0 0.9 3.0"


def test_packages_are_kept_until_what_is_asked_changes_in_any_file(world: World) -> None:
    offer(world.index, wheel("fine", "1.0"), wheel("tracker", "3.0"))
    files = {"requirements.txt": "-r more.txt", "more.txt": "fine"}
    world.prepare(world.node("First", files))
    asked = world.asked()

    world.prepare(world.node("First", files | {"code.py": ""}))

    assert world.index.paths()[asked:] == []
    assert installed(world) == ["fine-1.0"]
    world.prepare(world.node("First", {"more.txt": "tracker"}))
    assert installed(world) == ["tracker-3.0"]
