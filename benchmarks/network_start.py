"""Time a fresh process: import, construction, first training steps. Prints processor seconds and MB as JSON.

Run by networks.py: ``python network_start.py CANDIDATE GROUP WIDTH DEPTH SIZE BATCH``; with size 0 there are no steps.
Nothing that a candidate needs may be imported before its clock starts, except torch, which all need.
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
    """Import gconv_ga."""
    from gconv_ga.models import EquivariantUNet

    return lambda: EquivariantUNet(3, 2, group=group, width=width, depth=depth)


def escnn(group: str, width: int, depth: int) -> Callable[[], Any]:
    """Import escnn, with the files it cached in earlier runs."""
    from escnn_unet import EscnnUNet

    return lambda: EscnnUNet(3, 2, group, width, depth, reduction="mean")


def escnn_cold(group: str, width: int, depth: int) -> Callable[[], Any]:
    """Import escnn, without files cached in earlier runs."""
    import joblib

    memory, folder = joblib.Memory, tempfile.mkdtemp()
    joblib.Memory = lambda location, **options: memory(folder, **options)
    return escnn(group, width, depth)


def escnn_no_draw(group: str, width: int, depth: int) -> Callable[[], Any]:
    """Import escnn without random initial weights, as for a network whose trained parameters are loaded."""
    from escnn import nn as enn

    enn.R2Conv = functools.partial(enn.R2Conv, initialize=False)
    return escnn(group, width, depth)


def plain(group: str, width: int, depth: int) -> Callable[[], Any]:
    """Import the compute-matched baseline of gconv_ga."""
    from gconv_ga.groups import as_group
    from gconv_ga.models import UNet

    return lambda: UNet(3, 2, width=width * as_group(group).order, depth=depth)


# Each imports what its network needs and returns a function that builds it.
CANDIDATES = {
    "gconv_ga": gconv_ga,
    "escnn": escnn,
    "escnn, cold": escnn_cold,
    "escnn, uninitialized": escnn_no_draw,
    "plain": plain,
}


def main() -> None:
    """Run the stages and print their times."""
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
    times = dict(zip(stages, seconds, strict=True))
    print(json.dumps(times | {"peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
