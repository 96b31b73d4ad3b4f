"""Jobs: the names that clients give, parsed once, and the files of one job."""
