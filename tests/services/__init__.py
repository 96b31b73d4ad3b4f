"""Tests of run/: real processes, real signals."""
