"""Conversion of escnn's norms and nonlinearities for vectors and other fields."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._convolutions import channels_of, grid_check, refuse_own_grids
from ._field_layers import around
from ._field_norms import (
    FieldActivation,
    FieldGates,
    FieldMaxPool,
    FieldNormalization,
    FourierActivation,
    IrrepStatistics,
    ScalarStatistics,
)
from ._fields import read_fields

LENGTHS: dict[Any, str] = {torch.relu: "relu", torch.sigmoid: "sigmoid", F.softplus: "softplus"}
VALUES: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU, F.relu_: nn.ReLU, F.elu: nn.ELU, F.elu_: nn.ELU, F.sigmoid: nn.Sigmoid, torch.sigmoid_: nn.Sigmoid,
    F.tanh: nn.Tanh, torch.tanh_: nn.Tanh,
}  # fmt: skip


class FieldReader:
    """Converts norms and nonlinearities of fields, each as its core between escnn's channels.

    Args:
        enn: ``escnn.nn``.
        sampling: "shared" or "per_orientation", for pools.
    """

    def __init__(self, enn: ModuleType, sampling: str) -> None:
        self.sampling = sampling
        cores: dict[type, Callable[[Any, str], nn.Module]] = {
            enn.NormNonLinearity: self._activation,
            enn.GatedNonLinearity1: self._gates,
            enn.NormMaxPool: self._max_pool,
            enn.GNormBatchNorm: self._irrep_norm,
            enn.IIDBatchNorm2d: self._scalar_norm,
            enn.FourierPointwise: self._fourier,
            enn.FourierELU: self._fourier,
            enn.QuotientFourierPointwise: self._fourier,
            enn.QuotientFourierELU: self._fourier,
        }
        self.makers = {kind: self._between_channels(core) for kind, core in cores.items()}

    def _between_channels(self, core: Callable[[Any, str], nn.Module]) -> Callable[[Any, str], nn.Module]:
        def make(module: Any, path: str) -> nn.Module:
            into, outof = read_fields(module.in_type, path), read_fields(module.out_type, path)
            return around(into, core(module, path), outof)

        return make

    def _activation(self, module: Any, path: str) -> nn.Module:
        sizes = read_fields(module.in_type, path).sizes
        bias = None if module.log_bias is None else module.log_bias.detach().flatten().clone()
        function = LENGTHS.get(module._function, "squash")  # noqa: SLF001  escnn has no other name for it
        made = FieldActivation(sizes, function, bias, float(module.eps))
        return _keep_frozen(made, {"log_bias": module.log_bias})

    def _gates(self, module: Any, path: str) -> nn.Module:
        kinds, last = [], 0
        gates = _range_or_index(module.gates_indices, module._contiguous["gate"])  # noqa: SLF001
        fields = read_fields(module.in_type, path).sizes
        for size in fields:
            kinds.append((last, size, last in gates and size == 1))
            last += size
        gated = [(start, size) for start, size, is_gate in kinds if not is_gate]
        # Gates multiply the fields in ascending order of their size.
        by_size = sorted(range(len(gated)), key=lambda i: (gated[i][1], i))
        number = {i: place for place, i in enumerate(by_size)}
        channels = [start + c for start, size in gated for c in range(size)]
        gate_of = [number[i] for i, (_, size) in enumerate(gated) for _ in range(size)]
        keep = list(range(len(gates), len(gates) + len(channels)))
        if not module.drop_gates:
            order = [*gates, *channels]
            keep = sorted(range(len(order)), key=order.__getitem__)
        of_fields = torch.tensor(channels), torch.tensor(gate_of), torch.tensor(keep)
        made = FieldGates(torch.tensor(gates), *of_fields, module.bias.detach().flatten().clone())
        return _keep_frozen(made, {"bias": module.bias})

    def _max_pool(self, module: Any, path: str) -> nn.Module:
        fields, window = read_fields(module.in_type, path), (module.kernel_size, module.stride, module.padding)
        check = grid_check(fields.group, *window, module.dilation)
        if check is not None and self.sampling == "per_orientation":
            refuse_own_grids(path)
        made = FieldMaxPool(fields.sizes, (*window, module.dilation), module.ceil_mode)
        return made if check is None else nn.Sequential(check, made)

    def _fourier(self, module: Any, path: str) -> nn.Module:
        act = VALUES[module._function]()  # noqa: SLF001
        return FourierActivation(module.A.detach().clone(), module.Ainv.detach().clone(), act)

    def _irrep_norm(self, module: Any, path: str) -> nn.Module:
        def norm(name: str, size: int) -> nn.Module:
            tables = [
                _copy(module, f"{name}_change_of_basis"),
                _copy(module, f"{name}_change_of_basis_inv"),
                module.get_buffer(f"vars_propagator_{name}").detach().clone(),
            ]
            invariant = module._trivial_idxs[name.replace("^", ".")]  # noqa: SLF001
            return IrrepStatistics(tables[0], tables[1], tables[2], invariant, _state(module, name), module.eps)

        return self._normalization(module, norm)

    def _scalar_norm(self, module: Any, path: str) -> nn.Module:
        def norm(name: str, size: int) -> nn.Module:
            project, invariant = _copy(module, f"{name}_avg"), _copy(module, f"{name}_change_of_basis")
            return ScalarStatistics(size, project, invariant, _state(module, name), module.eps)

        return self._normalization(module, norm, module.track_running_stats)

    def _normalization(self, module: Any, norm: Callable[[str, int], nn.Module], tracks: bool = True) -> nn.Module:
        channels, sizes, norms = [], [], []
        for name, size in module._sizes:  # noqa: SLF001
            escaped = name.replace(".", "^")
            made = norm(escaped, size)
            theirs = {key: getattr(module, f"{escaped}_{key}", None) for key in ("weight", "bias")}
            norms.append(_keep_frozen(made, theirs))
            channels.append(channels_of(module.in_type.representations, name))
            sizes.append(size)
        batches = module.num_batches_tracked.detach().clone()
        return FieldNormalization(channels, sizes, norms, module.momentum, batches, tracks)


def _range_or_index(indices: Tensor, contiguous: bool) -> list[int]:
    found: list[int] = indices.tolist()
    return list(range(found[0], found[1])) if contiguous else found


def _copy(module: Any, name: str) -> Tensor | None:
    found = getattr(module, name, None)
    return None if found is None else found.detach().clone()


def _state(module: Any, name: str) -> dict[str, Tensor]:
    """Return running statistics, weight and bias of the fields of one representation."""
    copies = {key: _copy(module, f"{name}_{key}") for key in ("running_mean", "running_var", "weight", "bias")}
    return {key: value for key, value in copies.items() if value is not None}


def _keep_frozen(made: nn.Module, theirs: dict[str, Any]) -> nn.Module:
    """Return the module, its parameters frozen where escnn's are."""
    for name, parameter in theirs.items():
        if parameter is not None:
            made.get_parameter(name).requires_grad_(parameter.requires_grad)
    return made
