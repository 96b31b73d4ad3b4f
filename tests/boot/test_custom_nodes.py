"""Custom nodes through whole boots: who loses, who can't be imported, and a second worker without a network."""

import errno
import os
import signal
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from uv import find_uv_bin

from morpheus_boot.volume.archive import digest_of
from tests.boot.given import PYTHON, REAL, START_LIMIT_S, site_with_comfyui
from tests.boot.program import Site
from tests.custom_nodes.git_server import GitServer, commit, git_server
from tests.custom_nodes.wheels import offer
from tests.custom_nodes.world import make_python
from tests.package_index import PackageIndex, package_index, wheel
from tests.wait import wait_until

TELLING = """
import numpy, shapely, tracker

NODE_CLASS_MAPPINGS = {}
print("ALPHA has", shapely.VERSION, tracker.VERSION, numpy.__file__, flush=True)
"""
# The stand-in gives none.
REASON = "No module named 'nothing_like_it'" if REAL else ""
SILENT = "NODE_CLASS_MAPPINGS = {}\n"


@dataclass(frozen=True)
class Origins:
    """Where the nodes and their packages come from."""

    repositories: GitServer
    index: PackageIndex

    def models(self, **nodes: tuple[str, str]) -> str:
        """models.yaml of nodes by name, each with its requirements.txt and its code; Alpha alone is required."""
        lines = ["version: 1", "models: []", "custom_nodes:"]
        for name, (requirements, code) in nodes.items():
            files = {"requirements.txt": requirements, "__init__.py": code}
            pin = commit(self.repositories.root / name, files)
            url = f"{self.repositories.url}/{name}"
            required = str(name == "Alpha").lower()
            lines.append(f"  - {{name: {name}, git: '{url}', ref: {pin}, required: {required}}}")
        return "\n".join((*lines, ""))

    def asked(self) -> int:
        """How many requests both have got."""
        return len(self.repositories.asked) + len(self.index.asked)


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[Origins]:
    (tmp_path / "repositories").mkdir()
    with git_server(tmp_path / "repositories") as repositories, package_index() as index:
        offer(
            index,
            wheel("shapely", "1.0"),
            wheel("shapely", "2.0"),
            wheel("tracker", "3.0", ("shapely>=2", "numpy>=1")),
            wheel("numpy", "1.26.0"),
        )
        yield Origins(repositories, index)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's: the real one, else one with a numpy and all that the stand-in needs."""
    if REAL:
        return PYTHON
    made = make_python(tmp_path_factory.mktemp("python") / "venv")
    site = next(made.parent.parent.glob("lib/python3*/site-packages"))
    (site / "more.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return made


def container(root: Path, python: Path, origins: Origins, models: str, **environ: str) -> Site:
    """A container on the volume of all, whose local disk is fresh."""
    site = site_with_comfyui(root, models)
    site.environ = {
        **site.environ,
        "COMFYUI_PYTHON": str(python),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": origins.index.url,
        "PATH": f"{Path(find_uv_bin()).parent}:{os.environ['PATH']}",
        **environ,
    }
    (root.parent / "volume").mkdir(exist_ok=True)
    (root / "volume").symlink_to(root.parent / "volume")
    return site


def ready_log(site: Site) -> str:
    """The log of a boot that became ready."""
    with site.start("up") as up:
        up.wait_until_ready(START_LIMIT_S)
        assert up.stop() == 0
    return up.log


def held_by(python: Path) -> list[Path]:
    """What ComfyUI's Python has installed."""
    return sorted(python.parent.parent.glob("lib/python3*/site-packages/*"))


def test_nodes_that_disagree_lose_by_name_and_a_second_worker_needs_no_network(
    origins: Origins, python: Path, tmp_path: Path
) -> None:
    models = origins.models(
        Alpha=("tracker\nnumpy\n", TELLING),
        Second=("shapely<2\n", SILENT),
        Old=("numpy<2\n", SILENT),
        Broken=("", "import nothing_like_it\n"),
    )
    before = held_by(python)

    first = ready_log(container(tmp_path / "first", python, origins, models))

    assert held_by(python) == before
    told = (
        "ALPHA has 2.0 3.0 " + str(python.parent.parent),
        "custom node Old is left out: its requirements can't be met beside those of Alpha: ",
        "you require numpy<2 and numpy==2.4.6",
        "custom node Second is left out: its requirements can't be met beside those of Alpha: ",
        "you require shapely<2",
        f"custom node Broken: ComfyUI can't import it, {REASON}",
    )
    assert [line for line in told if line not in first] == []

    asked = origins.asked()
    (tmp_path / "no-git").mkdir()
    nowhere = {"PATH": str(tmp_path / "no-git"), "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    second = ready_log(container(tmp_path / "second", python, origins, models, **nowhere))

    assert origins.asked() == asked
    assert [line for line in told if line not in second] == []


def test_a_required_node_whose_requirements_comfyui_cannot_meet_ends_the_boot_with_65(
    origins: Origins, python: Path, tmp_path: Path
) -> None:
    models = origins.models(Alpha=("numpy<2\n", SILENT))

    ended = container(tmp_path / "first", python, origins, models).run("up")

    assert ended.code == 65
    assert "custom node Alpha: its requirements can't be met: " in ended.err
    assert "you require numpy<2 and numpy==" in ended.err
    assert "Traceback" not in ended.err


def test_a_node_that_a_restarted_comfyui_can_import_is_not_named_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    node = site.comfyui / "custom_nodes" / "Alpha"
    node.mkdir()
    (node / "__init__.py").write_text("import nothing_like_it\n")

    with site.start("up") as up:
        up.wait_until_ready()
        (node / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
        (comfyui,) = (s for s in up.get("/status").json()["services"] if s["name"] == "comfyui")
        os.kill(comfyui["pid"], signal.SIGKILL)
        wait_until(lambda: "ready again" in up.log, timeout_s=30)
        assert up.stop() == 0

    assert up.log.count("custom node Alpha: ComfyUI can't import it") == 1


def test_sigterm_ends_a_boot_whose_custom_node_is_read_from_a_volume_that_hangs(
    tmp_path: Path,
) -> None:
    pin = "c" * 40
    site = Site(
        tmp_path,
        "version: 1\nmodels: []\ncustom_nodes:\n"
        f"  - {{name: Alpha, git: 'https://origin.invalid/Alpha', ref: {pin}}}\n",
    )
    archive = site.volume / ".morpheus" / "archives" / "nodes" / f"Alpha-{pin}.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.touch()
    # Whoever reads a pipe waits for what comes from its other end, as on a volume whose link is cut.
    digest = digest_of(archive)
    os.mkfifo(digest)

    with site.start("up") as up:
        other_end = wait_until(lambda: open_once_read(digest))
        try:
            assert up.stop() == 0
        finally:
            os.close(other_end)


def open_once_read(pipe: Path) -> int:
    """The writing end, once someone has opened the other one."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise AssertionError("nobody reads it") from error
