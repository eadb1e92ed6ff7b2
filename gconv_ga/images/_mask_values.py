"""The meaning of the values in the masks of a data set: class indices, two values for two classes, or neither."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ._masks import MaskEncoding

USUAL_MARKS = (254, 255, 65534, 65535)  # of ignored pixels
MANY = 8  # classes from which masks that each count from 0 are taken for instances
MOST = 256  # classes that are counted; more must be asked for
STEEP = 16  # largest value of masks whose edges may be smooth
ASK = "or if these are classes, give their number with classes (--classes)"


def understand(
    files: Sequence[Mapping[int, int]], code: MaskEncoding, classes: int | None
) -> tuple[MaskEncoding, str, str]:
    """Find out what the values in masks without colours mean.

    Two values stand for two classes in their order, whatever they are. Refused are values that cannot be class indices:
    a mark of ignored pixels that was not declared, smooth edges, and numbers of instances, which each mask counts anew.
    Instances are not recognized where no mask has more than 7, or all have equally many: they look like classes.

    Args:
        files: Number of pixels of each value in each mask.
        code: Encoding that is asked for.
        classes: Number of classes that is asked for. If None, it is to be found.

    Returns:
        The encoding; what to tell about it, or nothing; what is wrong with the values, or nothing.
    """
    counts = Counter[int]()
    for file in files:
        counts.update(file)
    if code.ignore_index is not None:
        counts.pop(code.ignore_index, None)
    values = sorted(counts)
    if code.values is not None:  # of the training
        is_plain = not set(values) <= set(code.values) and set(values) <= {0, 1}
        return replace(code, values=None) if is_plain else code, "", ""
    if not values or (classes is not None and values[0] >= 0 and values[-1] < classes):
        return code, "", ""
    fault = _undeclared_mark(values) or ("" if classes is not None else _no_indices(files, counts, code.ignore_index))
    # Where 0 or 1 is ignored, values that became 0 and 1 would be too.
    if not fault and len(values) <= 2 and classes in (None, 2) and values[-1] > 1 and code.ignore_index not in (0, 1):
        low, high = (0, values[0]) if len(values) == 1 else values
        return replace(code, values=(low, high)), f"the masks hold {low} and {high}, read as classes 0 and 1", ""
    return code, "", fault


def _undeclared_mark(values: Sequence[int]) -> str:
    """Fault: one value far from the class indices, which is a usual mark of ignored pixels, or a negative one."""
    for mark, others in ((values[0], values[1:]), (values[-1], values[:-1])):
        highest = len(others) - 1
        is_usual = mark < 0 or (
            highest >= 1 and mark > highest + 1 and (mark in USUAL_MARKS or mark > 10 * len(others))
        )
        if is_usual and list(others) == list(range(len(others))):
            return (
                f"value {mark} beside 0 .. {highest} is probably a mark of ignored pixels; "
                f"declare it with ignore_index (--ignore-index {mark})"
            )
    return ""


def _no_indices(files: Sequence[Mapping[int, int]], counts: Counter[int], ignored: int | None) -> str:
    """Fault: values that are smooth edges, or numbers of instances."""
    values = sorted(counts)
    low, high, total = values[0], values[-1], sum(counts.values())
    is_dense = len(values) == high - low + 1
    mostly_extreme = 2 * (counts[low] + counts[high]) > total and counts[high] > total / 1000
    if len(values) > 4 and high >= STEEP and mostly_extreme and (high >= 100 or not is_dense):
        return (
            f"{len(values)} values from {low} to {high}, most pixels at these two, look like smooth edges; set pixels "
            f"to either side of {(low + high) // 2}, and resize and save masks without interpolation; {ASK}"
        )
    own = [sorted(value for value in file if value != ignored) for file in files]
    begins = [[value for value in found if value > 0] for found in own]
    counted_anew = all(found == list(range(1, len(found) + 1)) for found in begins)
    if (is_dense and counted_anew and high >= MANY and len({len(found) for found in begins}) > 1) or len(values) > MOST:
        return (
            f"{len(values)} values from {low} to {high} look like numbers of instances, which each mask counts anew; "
            f"make masks of classes, such as 0 where they are 0 and 1 elsewhere; {ASK}"
        )
    return ""
