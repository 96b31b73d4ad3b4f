"""Threads, programs that we run, and how work is stopped."""
