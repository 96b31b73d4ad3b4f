"""The network volume: its mount, its layout, and how files are published on it."""
