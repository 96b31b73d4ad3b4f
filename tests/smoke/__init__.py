"""Tests of smoke: its stand-in ComfyUI, its origin, and the chain itself."""
