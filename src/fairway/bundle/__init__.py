"""What travels: a directory of data with a manifest, its digests, its signature and its archive."""
