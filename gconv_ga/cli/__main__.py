"""``python -m gconv_ga.cli``."""

from . import main

main()
