"""What the tests stand on: an origin that misbehaves on command, a real MooseFS, a shim below libc."""
