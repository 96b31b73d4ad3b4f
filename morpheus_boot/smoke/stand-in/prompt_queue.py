"""What waits, what runs and what has run, shared by the server and the thread that runs prompts."""

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """One queued prompt; the smallest number runs first."""

    number: float
    prompt_id: str
    prompt: Json = field(compare=False)
    extra_data: Json = field(compare=False)
    outputs: list[str] = field(compare=False)

    def as_json(self) -> list[Any]:
        """As `/queue` and `/history` show it."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


class PromptQueue:
    """Safe from any thread; ``on_change`` is called at every change."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._changed = threading.Condition()
        self._waiting: list[Item] = []
        self._running: Item | None = None
        self._history: dict[str, Json] = {}

    def put(self, item: Item) -> None:
        """Queues a prompt."""
        with self._changed:
            heapq.heappush(self._waiting, item)
            self._changed.notify()
        self._on_change()

    def take(self) -> Item:
        """Waits for a prompt and makes it the running one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            item = self._running = heapq.heappop(self._waiting)
        self._on_change()
        return item

    def finish(self, item: Item, result: Json) -> None:
        """The running prompt has ended with ``result``: outputs, meta and status."""
        with self._changed:
            self._history[item.prompt_id] = {"prompt": item.as_json(), **result}
            self._running = None
        self._on_change()

    def delete(self, prompt_ids: list[str] | None) -> None:
        """Takes prompts that wait out of the queue; None: all."""
        with self._changed:
            kept = [] if prompt_ids is None else self._waiting
            self._waiting = [item for item in kept if item.prompt_id not in (prompt_ids or ())]
            heapq.heapify(self._waiting)
        self._on_change()

    def forget(self, prompt_ids: list[str] | None) -> None:
        """Takes prompts out of the history; None: all."""
        with self._changed:
            for prompt_id in prompt_ids if prompt_ids is not None else list(self._history):
                self._history.pop(prompt_id, None)

    def is_running(self, prompt_id: str) -> bool:
        """Whether this prompt runs now."""
        running = self._running
        return running is not None and running.prompt_id == prompt_id

    def remaining(self) -> int:
        """How many prompts wait or run."""
        with self._changed:
            return len(self._waiting) + (self._running is not None)

    def snapshot(self) -> Json:
        """As `/queue` answers."""
        with self._changed:
            running = [self._running.as_json()] if self._running else []
            waiting = [item.as_json() for item in self._waiting]
            return {"queue_running": running, "queue_pending": waiting}

    def history(self, prompt_id: str | None = None, max_items: int | None = None) -> Json:
        """As `/history` and `/history/<id>` answer: the newest ``max_items``, or one, or none."""
        with self._changed:
            if prompt_id is not None:
                return {k: v for k, v in self._history.items() if k == prompt_id}
            entries = list(self._history.items())
            return dict(entries[-max_items:] if max_items else entries)
