"""One page of HTML to play with: a network rotates an image, beside its baseline, and the parts it is made of.

The page needs no other file and no server. It computes everything itself, in plain JavaScript.

Needs the extra ``train``.

Names: `play_page`; `NETWORKS`, the folder of the trained networks that come with it.

Example:
    >>> from gconv_ga.play import play_page
    >>> page = play_page()
    >>> page.startswith("<!DOCTYPE html>"), len(page) < 2_000_000
    (True, True)
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._page import NETWORKS, play_page

__all__ = ["NETWORKS", "play_page"]

__getattr__, __dir__ = lazy_names(__name__, {"_page": ["NETWORKS", "play_page"]}, extra="train")
