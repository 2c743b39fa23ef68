"""Question generators, one file each. A file that registers itself here is found without being imported anywhere."""
