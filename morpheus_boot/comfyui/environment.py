"""The environment that ComfyUI, and any other Python, is given: the container's, without what it must not know."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from morpheus_boot.config.redact import holds_userinfo, names_a_secret

# Ours, and RunPod's queue, beside whatever is named like a secret.
_WITHHELD: Final = re.compile(r"(?i)(?:MORPHEUS|RUNPOD_WEBHOOK)_")
# Whoever may use the network must know the way out, password and all.
_PROXY: Final = re.compile(r"(?i)\w+_proxy")

# No program does without these, whatever models.yaml makes of them.
_NEEDED: Final = frozenset({"HOME", "PATH", "TMPDIR", "USER"})

# Where the libraries of custom nodes keep their downloads: transformers, diffusers and open_clip (by huggingface_hub),
# torch.hub and timm. insightface and facexlib know no such variable (docs/custom-nodes.md).
_NODE_CACHES: Final = {"HF_HOME": "huggingface", "TORCH_HOME": "torch"}


def comfyui_environment(
    environ: Mapping[str, str],
    passed: Iterable[str],
    repository: Path,
    node_cache: Path,
    *,
    named: Iterable[str] = (),
) -> dict[str, str]:
    """``environ`` for ComfyUI: no secret but those ``passed`` by name (comfyui.env), and none of our Python.

    A secret is also what models.yaml has ``named`` by ``${NAME}``, whatever it is called.
    Custom nodes are other people's code: what they can read they can send. What they download by themselves
    goes to ``node_cache`` on the volume, unless the user said where, so that only the first worker pays for it.
    """
    wanted = frozenset(passed)
    hidden = frozenset(named) - wanted - _NEEDED
    known = {name: value for name, value in environ.items() if name not in hidden}
    kept = environment_without_secrets(known, wanted, repository)
    for name, folder in _NODE_CACHES.items():
        kept.setdefault(name, str(node_cache / folder))
    return kept


def environment_without_secrets(
    environ: Mapping[str, str], passed: Iterable[str], repository: Path
) -> dict[str, str]:
    """``environ`` for a program of another Python: no secret but those ``passed`` by name, and none of our modules."""
    wanted = frozenset(passed)
    kept = {
        name: value
        for name, value in environ.items()
        if name in wanted or not _is_withheld(name, value)
    }
    own = str(repository)
    rest = [p for p in kept.pop("PYTHONPATH", "").split(":") if p and p != own]
    if rest:
        kept["PYTHONPATH"] = ":".join(rest)
    kept["PYTHONUNBUFFERED"] = "1"
    return kept


def _is_withheld(name: str, value: str) -> bool:
    if _WITHHELD.match(name) or names_a_secret(name):
        return True
    return holds_userinfo(value) and not _PROXY.fullmatch(name)
