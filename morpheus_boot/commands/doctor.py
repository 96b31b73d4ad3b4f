"""``doctor``: looks at all that a boot needs, and says how each part stands."""

import threading
from dataclasses import asdict
from typing import Final

from morpheus_boot.config.settings import Invocation
from morpheus_boot.doctor import Finding, Level, examine
from morpheus_boot.errors import NotSetUp
from morpheus_boot.report.stdout import print_json, print_line
from morpheus_boot.services.signals import run_to_end

# Torch alone takes 10 s and more from a cold disk.
_DEADLINE_S: Final = 60.0


def run(invocation: Invocation) -> None:
    """Prints every finding. Raises NotSetUp where one is an error."""
    found = run_to_end(lambda stopping: _examine(invocation, stopping))
    if invocation.json:
        print_json({"findings": [asdict(f) for f in found]})
    wrong = [finding.check for finding in found if finding.level is Level.ERROR]
    if wrong:
        raise NotSetUp(
            "doctor",
            f"{len(wrong)} errors ({', '.join(dict.fromkeys(wrong))})",
            "mend them as they say",
        )


def _examine(invocation: Invocation, stopping: threading.Event) -> list[Finding]:
    found = []
    findings = examine(
        invocation.settings, invocation.redact, stopping=stopping, deadline_s=_DEADLINE_S
    )
    for finding in findings:
        shown = Finding(
            finding.check,
            finding.level,
            invocation.redact(finding.says),
            invocation.redact(finding.mend),
        )
        found.append(shown)
        if not invocation.json:
            mend = f"; {shown.mend}" if shown.mend else ""
            print_line(f"{shown.level:<8} {shown.check:<12} {shown.says}{mend}")
    return found
