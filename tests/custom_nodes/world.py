"""One volume, one ComfyUI with a real interpreter of its own, git repositories, a package index, and workers."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from morpheus_boot.cache.lock.lock import Turns
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.comfyui.custom_nodes import Preparation
from morpheus_boot.comfyui.custom_nodes.prepare import PreparedNodes
from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.config.redact import Secret
from morpheus_boot.manifest import NodeSpec
from morpheus_boot.volume.layout import Layout
from tests.custom_nodes.git_server import GitServer, commit, git_server
from tests.custom_nodes.wheels import unzip, wheel
from tests.package_index import PackageIndex, package_index

NUMPY = "2.4.6"
QUICK = LockTimes(beat_s=0.1, silence_s=5.0, deadline_s=60.0, poll_s=0.02)


def make_python(folder: Path, pip_wheel: Path) -> Path:
    """An environment with a pip and a numpy, as ComfyUI has one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    for content in (pip_wheel.read_bytes(), wheel("numpy", NUMPY)[1]):
        for name, part in unzip(content).items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_bytes(part)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "compileall", "-q", "-j", "0", site], check=True)
    return python


@dataclass(frozen=True)
class Prepared:
    """What one boot has put in place: the custom nodes' folder, and what ComfyUI's PYTHONPATH begins with."""

    folder: Path
    python_path: Path | None
    nodes: PreparedNodes

    @property
    def names(self) -> list[str]:
        """Of the nodes that ComfyUI gets."""
        return [tree.name for tree in self.nodes.trees]


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

    def preparation(self, worker: str = "a") -> Preparation:
        """That of a worker whose local disk is its own."""
        return Preparation(
            comfyui=self.comfyui,
            layout=self.layout,
            local=self.folder / f"local-{worker}",
            environ=self.environ,
            turn=Turns(self.layout, worker, self.stopping, QUICK).turn,
            stopping=self.stopping,
        )

    def prepare(self, *nodes: NodeSpec, worker: str = "a") -> Prepared:
        """One boot of ``worker``."""
        preparation = self.preparation(worker)
        brought = preparation.bring(nodes)
        provided = preparation.provide(brought)
        return Prepared(preparation.folder, brought.python_path, provided)

    def asked(self) -> int:
        """How many requests git hosts and package index have got."""
        return len(self.repositories.asked) + len(self.index.asked)

    def run(self, prepared: Prepared, code: str) -> str:
        """What ComfyUI's Python prints for ``code``, started as ComfyUI is."""
        path = str(prepared.python_path) if prepared.python_path else ""
        ended = subprocess.run(
            [self.comfyui.python, "-c", code],
            env={**self.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.stdout.strip() or ended.stderr


@contextmanager
def make_world(folder: Path, python: Path) -> Iterator[World]:
    """A world that ends with the block."""
    comfyui = folder / "comfyui"
    (comfyui / "custom_nodes").mkdir(parents=True)
    (comfyui / "main.py").touch()
    with git_server(folder / "repositories") as repositories, package_index() as index:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": index.url,
            "PIP_TIMEOUT": "5",
        }
        repositories.root.mkdir()
        yield World(folder, ComfyUI(comfyui, python), repositories, index, environ)
