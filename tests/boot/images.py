"""RunPod's images as trees: a root of its own for each container, in which their paths are what they are there.

A mount namespace with a new root holds this machine's own system (/usr, /proc, /tmp, ...) and, at the image's paths,
folders of the test. So nothing at / of this machine is touched, and ``up`` finds the volume, ComfyUI and its Python
where it looks on RunPod, without an option. Needs root.
"""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.boot.program import Site

_COVERED = frozenset({"comfyui", "workspace", "runpod-volume", "opt", "lost+found"})
_ENTER = """
set -e
root=$1; shift
mount -t tmpfs tmpfs "$root"
for entry in $(ls /); do
  case " $COVERED " in *" $entry "*) continue ;; esac
  if [ -L "/$entry" ]; then
    cp -P "/$entry" "$root/$entry"
  elif [ -d "/$entry" ]; then
    mkdir "$root/$entry"
    mount --rbind "/$entry" "$root/$entry"
  fi
done
while [ "$1" != -- ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  case $3 in ro) mount -o remount,bind,ro "$root$2" ;; esac
  shift 3
done
shift
exec chroot "$root" "$@"
"""


def reason_missing() -> str | None:
    """Why there can be no such root here, or None."""
    if os.geteuid() != 0:
        return "not root: no mount namespace"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "no mount namespaces may be made"


@dataclass(frozen=True)
class Bind:
    """A folder of this machine at a path of the container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass
class Container(Site):
    """A container of one image: nothing but RunPod's own variables says where anything is."""

    binds: tuple[Bind, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        root = self.root / "root"
        root.mkdir(exist_ok=True)
        binds = [
            word
            for bind in self.binds
            for word in (str(bind.source), bind.target, "ro" if bind.read_only else "rw")
        ]
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh"),
            *(str(root), *binds, "--", sys.executable, "-m", "morpheus_boot", *arguments),
            *("--models", str(self.manifest)),
        ]

    def env(self) -> dict[str, str]:
        named = {k: v for k, v in super().env().items() if k != "COMFYUI_PYTHON"}
        # A real ComfyUI leaves byte code beside its sources; what is looked for is what we leave.
        return {**named, "COVERED": " ".join(_COVERED), "PYTHONDONTWRITEBYTECODE": "1"}


def make_venv(folder: Path) -> None:
    """An environment of ComfyUI's, which has what the stand-in needs: this Python's packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    (site / "more.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


def contents(tree: Path) -> Mapping[str, object]:
    """Every name below ``tree``; of files also what would change if one was written."""
    return {
        str(path.relative_to(tree)): (path.stat().st_mtime_ns, path.stat().st_size)
        if path.is_file()
        else None
        for path in tree.rglob("*")
    }
