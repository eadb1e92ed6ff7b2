"""gconv_ga."""
