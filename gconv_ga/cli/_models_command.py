"""``gconv-ga models``: the trained networks that come with the package."""

from typing import Annotated, Literal

import typer

from ._options import Debug


def models(
    name: Annotated[
        Literal["nuclei", "histology"] | None, typer.Argument(metavar="[NAME]", help="Print the card of this network.")
    ] = None,
    debug: Debug = False,
) -> None:
    """List the trained networks that come with the package, or print the card of one.

    A name is taken in place of a run: by predict, evaluate, check, export and play. A card has the data, the licences,
    the scores of each test image, and where the network fails.

    Example: gconv-ga models

    Example: gconv-ga models nuclei
    """
    from ..pretrained import NAMES, card_text, read_card

    if name is not None:
        print(card_text(read_card(name)), end="")
        return
    for each in NAMES:
        card = read_card(each)
        title, part = next(iter(card["scores"].items()))
        scores = f"Dice {part['mean']['dice']:.3f}, AP at IoU 0.5 {part['mean']['ap50']:.3f} ({part['images']} {title})"
        print(f"{each}: {card['purpose']} {scores}")
    print("gconv-ga predict --run NAME --images DIR --objects; gconv-ga models NAME says more")
