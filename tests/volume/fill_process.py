"""One worker as a process of its own: ``python -m tests.volume.fill_process``, told on stdin what to fill.

Prints each state that it reports, and at last ``{"exit": code, "error": text}``, as lines of JSON; the exit code
is the command line's.
"""

import json
import logging
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from morpheus_boot.cache import fill, make_plan
from morpheus_boot.cache.options import FillOptions, LockTimes, RetryPolicy, TransferTimes
from morpheus_boot.errors import Exit, MorpheusError
from morpheus_boot.state import ModelState
from tests.cache.worker import Worker, model


def main() -> int:
    told: dict[str, Any] = json.load(sys.stdin)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    worker = Worker(Path(told["root"]))
    options = FillOptions(
        worker=told["worker"],
        lock_times=LockTimes(**told["lock_times"]),
        transfer_times=TransferTimes(
            sync_bytes=told["sync_bytes"],
            retry=RetryPolicy(first_s=0.01, most_s=0.05, deadline_s=10.0),
        ),
    )
    error = ""
    code = Exit.DONE
    try:
        plan = make_plan([model(**m) for m in told["models"]], worker.layout)
        fill(plan, worker.volume, options, stopping=threading.Event(), report=_say_state)
    except MorpheusError as failed:
        code, error = failed.exit_code, str(failed)
    _say({"exit": int(code), "error": error})
    return code


def _say_state(state: ModelState) -> None:
    _say(asdict(state))


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main())
