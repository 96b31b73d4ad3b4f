"""Clients that know a worker's paths, or none, send their prompts straight to ComfyUI's port."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from morpheus_boot.smoke.picture import png_size
from tests.comfyui_node.served import (
    PICTURE,
    TOKEN,
    WORKER,
    Graph,
    Served,
    copied,
    node,
    node_errors,
    plain,
    real_only,
)


def saved(entry: dict[str, object]) -> list[str]:
    """What a prompt saved, relative to the output directory."""
    assert entry["status"]["status_str"] == "success", entry  # type: ignore[index]
    return [
        f"{image['subfolder']}/{image['filename']}"
        for output in entry["outputs"].values()  # type: ignore[attr-defined]
        for image in output["images"]
    ]
