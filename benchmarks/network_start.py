"""The life of one fresh process: import, construct, first training step; prints processor seconds and MB as JSON.

Run by networks.py: ``python network_start.py CANDIDATE GROUP WIDTH DEPTH SIZE BATCH``, no steps for size 0. Nothing
that a candidate needs may be imported before the clock runs, except torch, which all need.
"""

import functools
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any


def gconv_ga(group: str, width: int, depth: int) -> Callable[[], Any]:
    """Ours."""
    from gconv_ga.models import EquivariantUNet

    return lambda: EquivariantUNet(3, 2, group=group, width=width, depth=depth)


def escnn(group: str, width: int, depth: int) -> Callable[[], Any]:
    """escnn's, whose files from earlier runs are there."""
    from escnn_unet import EscnnUNet

    return lambda: EscnnUNet(3, 2, group, width, depth, reduction="mean")


def escnn_cold(group: str, width: int, depth: int) -> Callable[[], Any]:
    """escnn's, which finds no files of earlier runs."""
    import joblib

    memory, folder = joblib.Memory, tempfile.mkdtemp()
    joblib.Memory = lambda location, **options: memory(folder, **options)
    return escnn(group, width, depth)


def escnn_no_draw(group: str, width: int, depth: int) -> Callable[[], Any]:
    """escnn's, which does not draw its first weights: for those who load trained ones."""
    from escnn import nn as enn

    enn.R2Conv = functools.partial(enn.R2Conv, initialize=False)
    return escnn(group, width, depth)


def plain(group: str, width: int, depth: int) -> Callable[[], Any]:
    """The plain U-Net of as many multiply-adds."""
    from gconv_ga.groups import as_group
    from gconv_ga.models import UNet

    return lambda: UNet(3, 2, width=width * as_group(group).order, depth=depth)


CANDIDATES = {
    "gconv_ga": gconv_ga,
    "escnn": escnn,
    "escnn, cold": escnn_cold,
    "escnn, no first weights": escnn_no_draw,
    "plain": plain,
}


def main() -> None:
    """One life."""
    name, group, *numbers = sys.argv[1:]
    width, depth, size, batch = map(int, numbers)
    clock = time.process_time
    marks = [clock()]
    import torch

    torch.set_num_threads(1)
    marks.append(clock())
    build = CANDIDATES[name](group, width, depth)
    marks.append(clock())
    network = build()
    marks.append(clock())
    stages = ["torch", "import", "construct"]
    for stage in ("first step", "second step") if size else ():
        stages.append(stage)
        x = torch.randn(batch, 3, size, size)
        network.zero_grad(set_to_none=True)
        network(x).square().mean().backward()
        marks.append(clock())
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    found = dict(zip(stages, seconds, strict=True))
    print(json.dumps(found | {"peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
