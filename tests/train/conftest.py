"""A small segmenter."""

from small_segmenter import config, sample

__all__ = ["config", "sample"]
