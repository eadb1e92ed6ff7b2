"""The files of the trained networks: weights and cards. Imports nothing heavy: the command line looks names up."""

import json
from pathlib import Path
from typing import Any

from .._validate import one_of

FOLDER = Path(__file__).parent
NAMES = ("nuclei", "histology")


def find_checkpoint(name: str) -> Path:
    """Return the checkpoint of a network of the package, a file of less than 3 MB.

    Args:
        name: "nuclei" or "histology".

    Raises:
        ValueError: There is no such network.

    Example:
        >>> from gconv_ga.pretrained import find_checkpoint
        >>> find_checkpoint("nuclei").name
        'nuclei.safetensors'
    """
    return FOLDER / f"{one_of('name', name, NAMES)}.safetensors"


def read_card(name: str) -> dict[str, Any]:
    """Return what is known about a network of the package: images it is for, data, licence, scores, failures.

    Args:
        name: "nuclei" or "histology".

    Raises:
        ValueError: There is no such network.

    Example:
        >>> from gconv_ga.pretrained import read_card
        >>> read_card("nuclei")["channels"]
        1
    """
    card: dict[str, Any] = json.loads((FOLDER / f"{one_of('name', name, NAMES)}.json").read_text(encoding="utf-8"))
    return card
