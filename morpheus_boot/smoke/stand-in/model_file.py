"""Reads a model file as a loader would: a safetensors file must be whole, any other must have bytes."""

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A loaded model: its bytes' digest, and each tensor's shape (none for other than safetensors)."""

    digest: bytes
    shapes: dict[str, tuple[int, ...]]


def load_model(path: Path) -> ModelFile:
    """Loads ``path``. Raises ValueError where it is not whole, OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        shapes = {}
        if path.suffix in {".safetensors", ".sft"}:
            prefix = file.read(8)
            if len(prefix) < 8 or (header_bytes := struct.unpack("<Q", prefix)[0]) > size - 8:
                message = "Error while deserializing header: incomplete metadata"
                raise ValueError(message)
            header = json.loads(file.read(header_bytes))
            tensors = {name: t for name, t in header.items() if name != "__metadata__"}
            end = max((t["data_offsets"][1] for t in tensors.values()), default=0)
            if 8 + header_bytes + end != size:
                message = "Error while deserializing header: file not fully covered"
                raise ValueError(message)
            shapes = {name: tuple(t["shape"]) for name, t in tensors.items()}
        elif size == 0:
            message = "Ran out of input"
            raise ValueError(message)
        file.seek(0)
        return ModelFile(hashlib.file_digest(file, "sha256").digest(), shapes)
