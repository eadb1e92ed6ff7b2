"""Write escnn's kernels as arrays for rotation_error.py. Runs in the environment of the extra "escnn".

python benchmarks/rotation_error_escnn.py escnn_kernels.npz
"""

import sys
from pathlib import Path

import numpy as np
import torch

SIZES, ORDERS = (3, 5, 7), (8, 12, 16)
FIELDS, LAYERS, SEEDS = 4, 6, 8


def has_networks(n: int, k: int) -> bool:
    """Return True where networks are compared as well, which takes minutes."""
    return n == 8 or k == 5


def write_escnn(path: Path) -> None:
    """Write the kernels that span escnn's default layers, the initial spread of their weights, and random networks."""
    from escnn import gspaces, nn

    arrays = {}
    for n in ORDERS:
        space = gspaces.rot2dOnR2(n)
        image = nn.FieldType(space, [space.trivial_repr])
        fields = nn.FieldType(space, FIELDS * [space.regular_repr])
        one_field = nn.FieldType(space, [space.regular_repr])
        for k in SIZES:
            layer = nn.R2Conv(image, one_field, k)
            draws = []
            for _ in range(1000):
                nn.init.generalized_he_init(layer.weights.data, layer.basisexpansion)
                draws.append(layer.weights.detach().clone())
            kernels = []
            for coefficient in torch.eye(layer.weights.numel()):
                layer.weights.data.copy_(coefficient)
                kernels.append(layer.expand_parameters()[0][:, 0].detach().double())
            arrays[f"basis_{n}_{k}"] = torch.stack(kernels).numpy()
            arrays[f"spread_{n}_{k}"] = torch.stack(draws).std(0).double().numpy()
            for seed in range(SEEDS if has_networks(n, k) else 0):
                torch.manual_seed(seed)
                for i in range(LAYERS):
                    layer = nn.R2Conv(fields if i else image, fields, k, bias=False)
                    arrays[f"net_{n}_{k}_{seed}_{i}"] = layer.expand_parameters()[0].detach().numpy()
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    write_escnn(Path(sys.argv[1]))
