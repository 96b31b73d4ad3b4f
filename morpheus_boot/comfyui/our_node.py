"""Our own node, on its way into ComfyUI: a copy on local disk, and what its environment tells it."""

import hashlib
import shutil
from pathlib import Path
from typing import Final

from morpheus_boot.config.redact import Secret
from morpheus_boot.config.settings import may_mean
from morpheus_boot.errors import NotSetUp
from morpheus_boot.volume.mount import MOUNT_PATHS

NODE_NAME: Final = "morpheus_boot_node"
_SOURCE: Final = Path(__file__).parent / "guard"
_DISABLE_ALL: Final = "--disable-all-custom-nodes"


def place_our_node(nodes: Path) -> None:
    """Copies our node below ``nodes``, a folder of custom nodes that is ours. Raises OSError."""
    target = nodes / NODE_NAME
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(_SOURCE, target, ignore=shutil.ignore_patterns("__pycache__"))


def our_node_environment(
    *,
    jobs: Path,
    worker: str,
    volume_root: Path,
    token: Secret | None,
    origins: tuple[str, ...],
    gate: Path | None,
    packages: Path | None,
) -> dict[str, str]:
    """What our node reads. Of the token ComfyUI's process gets the SHA-256 alone.

    ``gate``: the file that it waits for before ComfyUI imports further nodes; they find ``packages`` then.
    """
    env = {
        "MORPHEUS_NODE_JOBS": str(jobs),
        "MORPHEUS_NODE_WORKER": worker,
        "MORPHEUS_NODE_MOUNTS": ":".join(map(str, dict.fromkeys((volume_root, *MOUNT_PATHS)))),
        "MORPHEUS_NODE_ORIGINS": " ".join(origins),
    }
    if token is not None:
        env["MORPHEUS_NODE_TOKEN_SHA256"] = hashlib.sha256(token.reveal().encode()).hexdigest()
    if gate is not None:
        env["MORPHEUS_NODE_GATE"] = str(gate)
    if packages is not None:
        env["MORPHEUS_NODE_PACKAGES"] = str(packages)
    return env


def require_our_node(arguments: tuple[str, ...]) -> None:
    """Raises NotSetUp where ComfyUI's arguments would keep our node out, and so leave the port unguarded."""
    if any(may_mean(argument, (_DISABLE_ALL,)) for argument in arguments):
        raise NotSetUp(
            "COMFYUI_ARGS",
            f"{_DISABLE_ALL} would leave ComfyUI's port without the node that guards it",
            "remove it, or name the nodes you want in models.yaml alone",
        )
