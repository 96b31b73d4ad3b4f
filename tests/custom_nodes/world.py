"""One volume, one ComfyUI with a real interpreter of its own, git repositories, a package index, and workers."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from uv import find_uv_bin

from morpheus_boot.cache.lock.lock import archive_lock
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.comfyui.custom_nodes import CustomNodes
from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.config.redact import Secret
from morpheus_boot.manifest import NodeSpec
from morpheus_boot.volume.layout import Layout
from tests.custom_nodes.git_server import GitServer, commit, git_server
from tests.custom_nodes.wheels import unzip
from tests.package_index import PackageIndex, package_index, wheel

NUMPY = "2.4.6"
QUICK = LockTimes(beat_s=0.1, silence_s=5.0, deadline_s=60.0, poll_s=0.02)


def make_python(folder: Path) -> Path:
    """An environment that holds a numpy, a torch that no index has, and a distribution whose version is none."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    held = (
        wheel("numpy", NUMPY),
        wheel("torch", "2.4.0+cu124", ("absent>=1", "optree; extra == 'optree'")),
        wheel("old", "1.0-custom"),
    )
    for _, content in held:
        for name, part in unzip(content).items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_bytes(part)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "compileall", "-q", "-j", "0", site], check=True)
    return python


@dataclass
class World:
    """Everything around the nodes of one endpoint."""

    folder: Path
    comfyui: ComfyUI
    repositories: GitServer
    index: PackageIndex
    environ: dict[str, str]
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "volume")

    @property
    def archives(self) -> list[str]:
        """What is kept on the volume, but digests."""
        kept = self.layout.archives.rglob("*")
        return sorted(p.name for p in kept if p.is_file() and p.suffix != ".sha256")

    def node(
        self, name: str, files: Mapping[str, str], *, required: bool = True, ref: str | None = None
    ) -> NodeSpec:
        """A node whose repository has ``files``, pinned to their commit unless ``ref`` says otherwise."""
        made = commit(self.repositories.root / name, {"__init__.py": "", **files})
        url = Secret(f"{self.repositories.url}/{name}")
        return NodeSpec(name, url, ref or made, required)

    def boot(self, *nodes: NodeSpec, worker: str = "a") -> CustomNodes:
        """Those of a boot of ``worker``, whose local disk is its own; nothing is done yet."""
        local = self.folder / f"local-{worker}"
        return CustomNodes(
            nodes,
            comfyui=self.comfyui,
            layout=self.layout,
            local=local,
            user=local / "user",
            environ=self.environ,
            archive_lock=partial(
                archive_lock,
                layout=self.layout,
                worker=worker,
                stopping=self.stopping,
                times=QUICK,
            ),
            stopping=self.stopping,
        )

    def prepare(self, *nodes: NodeSpec, worker: str = "a") -> "Prepared":
        """One boot of ``worker``."""
        booted = self.boot(*nodes, worker=worker)
        booted.bring()
        booted.provide()
        (folder,) = booted.folders
        return Prepared(folder, booted)

    def asked(self) -> int:
        """How many requests git hosts and package index have got."""
        return len(self.repositories.asked) + len(self.index.asked)

    def run(self, prepared: "Prepared", code: str) -> str:
        """What ComfyUI's Python prints for ``code``, started as ComfyUI is."""
        path = str(prepared.nodes.python_path or "")
        ended = subprocess.run(
            [self.comfyui.python, "-c", code],
            env={**self.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.stdout.strip() or ended.stderr


@dataclass(frozen=True)
class Prepared:
    """What one boot has put in place, in ComfyUI's further ``folder`` of custom nodes."""

    folder: Path
    nodes: CustomNodes

    @property
    def trees(self) -> list[Path]:
        """The nodes that ComfyUI gets."""
        return sorted(self.folder.iterdir())

    @property
    def left_out(self) -> dict[str, str]:
        """Why each node is left out."""
        return {node.name: node.reason for node in self.nodes.left_out}


@contextmanager
def make_world(folder: Path, python: Path) -> Iterator[World]:
    """A world that ends with the block."""
    comfyui = folder / "comfyui"
    (comfyui / "custom_nodes").mkdir(parents=True)
    (comfyui / "main.py").touch()
    with git_server(folder / "repositories") as repositories, package_index() as index:
        tools = folder / "tools"
        tools.mkdir()
        (tools / "uv").symlink_to(find_uv_bin())
        environ = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": index.url,
            "UV_HTTP_RETRIES": "0",
        }
        repositories.root.mkdir()
        yield World(folder, ComfyUI(comfyui, python), repositories, index, environ)
