"""The state document, the log, progress: renderings of one state."""
