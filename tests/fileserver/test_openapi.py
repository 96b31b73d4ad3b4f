"""schemathesis against the server's own OpenAPI: whatever it sends, the answers are as they are declared."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fileserver.serving import FileServer

pytest.importorskip("schemathesis", reason="schemathesis is not installed")

EXAMPLES = "15"


@pytest.mark.parametrize(
    ("selected", "tested"),
    [
        (["--exclude-path", "/jobs"], 13),
        # Which parameters are right is in the workflows on the volume, and not in the description.
        (["--include-path", "/jobs", "--exclude-checks", "positive_data_acceptance"], 1),
    ],
    ids=["others", "jobs"],
)
def test_schemathesis_finds_nothing(
    start: Callable[..., FileServer], tmp_path: Path, selected: list[str], tested: int
) -> None:
    server = start(env={"MORPHEUS_DOCS": "1", "MORPHEUS_TOKEN": "t0ken", "MORPHEUS_WORKER": "w"})
    server.output("j", "a.png", b"picture")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
        *("--header", "X-Morpheus-Token: t0ken", "--max-examples", EXAMPLES),
        *selected,
        *("--phases", "coverage,fuzzing", "--no-color", "--suppress-health-check", "all"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"Tested: {tested}" in done.stdout
    assert "ERROR" not in server.log
