"""What only RunPod's Serverless needs: the queue's handler with its SDK, and a word in time on long cold starts."""

from morpheus_boot.queue.service import QUEUE, prepare_queue, read_sdk_line, warn_of_long_fill

__all__ = ["QUEUE", "prepare_queue", "read_sdk_line", "warn_of_long_fill"]
