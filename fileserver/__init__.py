"""The file server: uploads, downloads and the boot's status, in a process of its own."""
