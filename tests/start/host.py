"""A machine with one Python and one package index, and a copy of the repository whose program says what it got."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.package_index import PackageIndex, sample_lock
from tests.pythons import run

REPOSITORY: Final = Path(__file__).resolve().parents[2]
_TOOLS: Final = ("bash", "readlink")
_PROGRAM: Final = """
import json, os, signal, sys
import morpheus_sample
print(json.dumps({
    "arguments": sys.argv[1:],
    "folder": os.getcwd(),
    "pid": os.getpid(),
    "prefix": sys.prefix,
    "pythonpath": os.environ["PYTHONPATH"],
    "value": morpheus_sample.VERSION,
}), flush=True)
if "keep" in sys.argv:
    from contextlib import nullcontext
    from pathlib import Path
    from morpheus_boot.start.installed import keep_environment
    from morpheus_boot.volume.layout import Layout
    volume = Path(sys.argv[sys.argv.index("--volume") + 1])
    keep_environment(Layout(volume), Path(sys.prefix), nullcontext)
if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    print("waiting", flush=True)
    signal.pause()
sys.exit(7 if "seven" in sys.argv else 0)
"""


def checkout_below(folder: Path) -> Path:
    """The copy, below a path with a space."""
    root = folder / "the repository"
    ignored = shutil.ignore_patterns("__pycache__", "*.md")
    shutil.copytree(REPOSITORY / "morpheus_boot", root / "morpheus_boot", ignore=ignored)
    shutil.copy(REPOSITORY / "pod_start.sh", root)
    (root / "morpheus_boot" / "__main__.py").write_text(_PROGRAM)
    (root / "morpheus_boot" / "requirements.txt").write_text(sample_lock())
    return root


def tools_below(folder: Path, **more: str | Path) -> Path:
    """A folder for PATH with what pod_start.sh itself calls, and ``more``: scripts, or programs to link to."""
    folder.mkdir()
    for name in _TOOLS:
        (folder / name).symlink_to(shutil.which(name) or name)
    for name, program in more.items():
        if isinstance(program, Path):
            (folder / name).symlink_to(program)
        else:
            (folder / name).write_text(f"#!/bin/sh\n{program}\n")
            (folder / name).chmod(0o755)
    return folder


@dataclass(frozen=True)
class Host:
    """The machine; ``local`` is where our environment lies on it."""

    root: Path
    tools: Path
    local: Path
    index: PackageIndex

    def environ(self, **more: str | Path) -> dict[str, str]:
        own = {
            "PATH": self.tools,
            "MORPHEUS_LOCAL_DIR": self.local,
            "PIP_INDEX_URL": self.index.url,
            "PIP_CONFIG_FILE": os.devnull,
        }
        return {name: str(value) for name, value in {**own, **more}.items()}

    def run(self, *arguments: str | Path, **more: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs pod_start.sh to its end."""
        return run([self.root / "pod_start.sh", *arguments], self.environ(**more))

    def said(self, *arguments: str | Path, **more: str | Path) -> dict[str, Any]:
        """What the program printed, with the start's own words as ``stderr``."""
        ended = self.run(*arguments, **more)
        assert ended.returncode == 0, ended.stderr
        return {**json.loads(ended.stdout), "stderr": ended.stderr}

    def start(self, *arguments: str, **more: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "pod_start.sh", *arguments],
            env=self.environ(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[int]:
        """What runs here that names the local folder on its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if os.fsencode(self.local) in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
                continue
        return found
