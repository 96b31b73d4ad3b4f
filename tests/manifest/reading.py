"""models.yaml read from a text, and what its mistakes say."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from morpheus_boot.errors import ManifestError, MorpheusError, each_of
from morpheus_boot.manifest import Manifest, read_manifest


def read(text: str | bytes, environ: Mapping[str, str] | None = None) -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "models.yaml"
        file.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return read_manifest(file, environ or {})


def errors(text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """Each mistake as its line in the log, without the file's folder; none where the text is right."""
    try:
        read(text, environ)
    except MorpheusError as error:
        found = each_of(error)
    else:
        return []
    assert {type(mistake) for mistake in found} == {ManifestError}
    return [f"models.yaml{str(mistake).partition('/models.yaml')[2]}" for mistake in found]


def model(fields: str, environ: Mapping[str, str] | None = None) -> Manifest:
    """A manifest of one model with these fields, in line 2."""
    return read(f"version: 1\nmodels: [{{{fields}}}]", environ)


def model_errors(fields: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with a model of these fields, without where it stands."""
    found = errors(f"version: 1\nmodels: [{{{fields}}}]", environ)
    assert all(error.startswith("models.yaml line 2, models[0]") for error in found)
    return [error.removeprefix("models.yaml line 2, models[0]").lstrip(".") for error in found]
