"""Services and their supervision: processes, signals, ports. Imports only the leaves."""
