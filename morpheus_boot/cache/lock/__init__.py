"""Who may fetch a model: locks, heartbeats, workers."""
