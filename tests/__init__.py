"""The tests, as one package: they share a test bed."""
