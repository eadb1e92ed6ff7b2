"""Where the pixels of rare classes are."""

import torch
from torch import Tensor

from .._validate import as_int
from ._pair_dataset import PairDataset, Pairs


def rare_places(pairs: Pairs, *, ignore_index: int | None = None, most: int = 1000) -> dict[int, Tensor]:
    """Return where the classes are in the masks of a data set, for crops that hold rare ones.

    Args:
        pairs: The data set; of files no more than a band of a mask is held.
        ignore_index: Class that is left out. If None, none is.
        most: Number of pixels of a class that are kept in each band of a mask, evenly spread over its pixels there.

    Returns:
        For each class but the most frequent one: index of the image, row and column of pixels, ``[N, 3]``.

    Raises:
        ValueError: ``most`` is not a positive int.

    Example:
        >>> import torch
        >>> from gconv_ga.images import Split, rare_places
        >>> masks = torch.zeros(2, 4, 5, dtype=torch.int64)
        >>> masks[1, 2, 3] = 1
        >>> rare_places(Split(torch.rand(2, 1, 4, 5), masks))
        {1: tensor([[1, 2, 3]])}
    """
    as_int("most", most, minimum=1)
    found: dict[int, list[Tensor]] = {}
    counts: dict[int, int] = {}
    for index in range(len(pairs)):
        top = 0
        for band in pairs.files(index)[1].bands() if isinstance(pairs, PairDataset) else [pairs[index][1]]:
            for value in band.unique().tolist():
                rows, columns = torch.nonzero(band == value, as_tuple=True)
                spread = torch.linspace(0, len(rows) - 1, min(most, len(rows))).round().to(torch.int64)
                kept = torch.stack((torch.full_like(spread, index), rows[spread] + top, columns[spread]), dim=1)
                found.setdefault(value, []).append(kept)
                counts[value] = counts.get(value, 0) + len(rows)
            top += len(band)
    counts = {value: count for value, count in counts.items() if value != ignore_index}
    frequent = max(counts, key=lambda value: counts[value], default=None)
    return {value: torch.cat(found[value]) for value in sorted(counts) if value != frequent}
