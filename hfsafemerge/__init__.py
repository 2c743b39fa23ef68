"""hfsafemerge: merge expert language models without losing safety alignment."""

__version__ = "0.1.0"
