"""How a fill ends before its time; apart, since who waits for it need not know of the network."""


class Stopped(Exception):
    """The boot was told to stop; what was synced stays for the next worker."""
