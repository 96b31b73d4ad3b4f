"""What custom nodes cost a boot of a real ComfyUI: boots with and without them take turns, on a warm volume.

    python -m tests.bench.nodes COMFYUI_DIR [COMFYUI_DIR...] --python PYTHON [--rounds N]

Prints a page of Markdown. Needs root, since the warm boots run in a network namespace that has loopback alone, with
no git on PATH, and each from a fresh MORPHEUS_LOCAL_DIR. Two real git repositories are the nodes: Alpha asks for pandas
and tabulate>=0.9 and imports both, Beta (not required) for numpy<2 and tabulate<0.9. Ends with 1 where a bar is missed.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.boot.program import REPOSITORY, Site
from tests.custom_nodes.git_server import commit

MOST_MORE_S: Final = 2.0
READY_LIMIT_S: Final = 600.0
ALPHA: Final = """
import numpy, pandas, tabulate

NODE_CLASS_MAPPINGS = {}
print("ALPHA", numpy.__version__, tabulate.__version__, flush=True)
"""
NODES: Final = {
    "Alpha": {"requirements.txt": "pandas\ntabulate>=0.9\nnumpy\n", "__init__.py": ALPHA},
    "Beta": {"requirements.txt": "numpy<2\ntabulate<0.9\n", "__init__.py": ALPHA},
}
_IMPORT_TIME: Final = re.compile(r"([\d.]+) seconds: .*/custom_nodes/Alpha")


@dataclass(frozen=True, slots=True)
class Booted:
    """One boot: seconds from its process to ready, those of its phases, and Alpha's import by ComfyUI.

    ``cpu_s``: what all its processes have spent until they were stopped.
    """

    seconds: float
    cpu_s: float
    phases: dict[str, float]
    import_s: float
    load: float


@dataclass(frozen=True, slots=True)
class Container:
    """Where one ComfyUI is booted again and again: a volume that stays, and local disks that don't."""

    folder: Path
    comfyui: Path
    python: Path

    def site(self, name: str, manifest: str) -> Site:
        """A fresh container, whose volume is that of all."""
        root = self.folder / name
        root.mkdir()
        # Whatever this machine needs to reach an index.
        pip = {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))
        }
        environ = {"COMFYUI_PYTHON": str(self.python), "COMFYUI_ARGS": "--cpu", **pip}
        site = Site(root, models=manifest, environ=environ)
        site.comfyui = self.comfyui
        (root / "volume").symlink_to(self.folder / "volume")
        return site

    def boot(self, name: str, manifest: str) -> tuple[Booted, str]:
        """One boot to its readiness, and its log; its local disk is removed."""
        site = self.site(name, manifest)
        began, began_cpu = time.monotonic(), _cpu_of_children()
        with site.start("up") as up:
            up.wait_until_ready(READY_LIMIT_S)
            seconds = time.monotonic() - began
            phases = up.get("/status").json()["phases"]
            up.stop()
        found = _IMPORT_TIME.search(up.log)
        booted = Booted(
            seconds,
            _cpu_of_children() - began_cpu,
            {phase["name"]: phase["seconds"] or 0.0 for phase in phases},
            float(found[1]) if found else 0.0,
            os.getloadavg()[0],
        )
        shutil.rmtree(site.root)
        return booted, up.log


def _cpu_of_children() -> float:
    """CPU seconds of the processes that were started here, or by those, and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def manifest_of(repositories: Path) -> str:
    """models.yaml of both nodes, pinned."""
    lines = ["version: 1", "models: []", "custom_nodes:"]
    for name, files in NODES.items():
        pin = commit(repositories / name, files)
        url = (repositories / name).as_uri()
        required = str(name == "Alpha").lower()
        lines.append(f"  - {{name: {name}, git: '{url}', ref: {pin}, required: {required}}}")
    return "\n".join(lines) + "\n"


def installed(python: Path) -> str:
    """What ComfyUI's Python holds, as pip lists it."""
    command = [str(python), "-B", "-m", "pip", "list", "--format=freeze"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return ended.stdout


def warm_boots(container: Container, manifest: str, rounds: int) -> list[list[Booted]]:
    """Boots without and with the nodes in turns, in this process's network."""
    kinds: list[list[Booted]] = [[], []]
    plain = "version: 1\nmodels: []\n"
    container.boot("unmeasured", plain)
    for turn in range(rounds):
        for kind, models in enumerate((plain, manifest)):
            booted, log = container.boot(f"warm-{turn}-{kind}", models)
            if kind:
                require_right(log)
            kinds[kind].append(booted)
    return kinds


def require_right(log: str) -> None:
    """Raises where Alpha had not what it needs, or Beta was not left out by name."""
    assert re.search(r"ALPHA 2\.\S+ 0\.(9|1\d)", log), log
    assert "custom node Beta is left out: its requirements can't be met" in log, log
    assert "IMPORT FAILED" not in log, log


def without_network(arguments: Sequence[str]) -> str:
    """Runs this module in a network namespace of its own, whose only interface is loopback; what it prints."""
    (tools := Path(tempfile.mkdtemp(prefix="tools-"))).chmod(0o755)
    for tool in ("setpriv", "ip", "ps"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    command = [sys.executable, "-m", "tests.bench.nodes", *arguments]
    try:
        return subprocess.run(
            [
                "unshare",
                "--net",
                "--",
                "sh",
                "-c",
                'ip link set lo up && exec "$@"',
                "sh",
                *command,
            ],
            cwd=REPOSITORY,
            env={**os.environ, "PATH_OF_WARM_BOOTS": str(tools)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    finally:
        shutil.rmtree(tools)


def measure(comfyui: Path, python: Path, rounds: int) -> bool:
    """Prints one section; whether the bar is met."""
    folder = Path(tempfile.mkdtemp(prefix="bench-nodes-"))
    try:
        manifest = manifest_of(folder / "repositories")
        (folder / "models.yaml").write_text(manifest)
        (folder / "volume").mkdir()
        container = Container(folder, comfyui, python)
        before = installed(python)
        cold, log = container.boot("cold", manifest)
        require_right(log)
        assert installed(python) == before
        shutil.rmtree(folder / "repositories")
        said = without_network(
            ["--warm", str(folder), str(comfyui), "--python", str(python), "--rounds", str(rounds)]
        )
        kinds = [[Booted(**b) for b in kind] for kind in json.loads(said.splitlines()[-1])]
        packed = sum(p.stat().st_size for p in (folder / "volume" / ".morpheus").rglob("*.tar.gz"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report(comfyui, cold, kinds[0], kinds[1], packed)


def report(
    comfyui: Path, cold: Booted, without: Sequence[Booted], with_: Sequence[Booted], packed: int
) -> bool:
    """Prints what was measured; whether the bar is met."""

    def median(boots: Sequence[Booted], phase: str = "") -> float:
        return statistics.median(b.phases.get(phase, 0.0) if phase else b.seconds for b in boots)

    more_s = median(with_) - median(without)
    loads = [b.load for b in (*without, *with_)]
    print(f"\n### {comfyui.name}\n")
    print(f"Cold with both nodes {cold.seconds:.1f} s; archives of {packed / 1e6:.0f} MB.")
    print(f"Load {min(loads):.1f} to {max(loads):.1f}; {len(without)} boots of each kind.\n")
    print("| warm, no network | ready s | before ComfyUI's start s | its start s | CPU s |")
    print("|---|---|---|---|---|")
    for name, boots in (("without nodes", without), ("with two", with_)):
        start = median(boots, "start ComfyUI")
        cpu = statistics.median(b.cpu_s for b in boots)
        before = median(boots) - start
        print(f"| {name} | {median(boots):.1f} | {before:.1f} | {start:.1f} | {cpu:.1f} |")
    print(f"\nThe nodes cost {more_s:.1f} s, at most {MOST_MORE_S} are allowed. ", end="")
    imports = statistics.median(b.import_s for b in with_)
    print(f"Of these ComfyUI takes {imports:.1f} s to import Alpha.", flush=True)
    return more_s <= MOST_MORE_S


def main() -> int:
    """0, or 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comfyui", type=Path, nargs="+")
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=Path, help="for itself: the folder of the warm boots")
    asked = parser.parse_args()
    if asked.warm is not None:
        os.environ["PATH"] = os.environ["PATH_OF_WARM_BOOTS"]
        container = Container(asked.warm, asked.comfyui[0], asked.python)
        manifest = (asked.warm / "models.yaml").read_text()
        kinds = warm_boots(container, manifest, asked.rounds)
        print(json.dumps([[asdict(booted) for booted in kind] for kind in kinds]))
        return 0
    print("## Custom nodes\n\n`python -m tests.bench.nodes`")
    met = [measure(comfyui, asked.python, asked.rounds) for comfyui in asked.comfyui]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
