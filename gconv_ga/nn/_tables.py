"""Lookup tables of layers: constants that follow from the arguments, and are no part of a network's state."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class KeepsTables(nn.Module):
    """Base class of layers with lookup tables.

    Tables are attributes, not buffers: what is done to all buffers of a network must not happen to them. A moving
    average of weights (`torch.optim.swa_utils.AveragedModel` with ``use_buffers=True``) would round indices down, and
    `torch.nn.utils.skip_init` and `torch.nn.Module.to_empty` would leave tables without numbers. They move with the
    layer, and they are made anew rather than converted, so that no digit is lost on the way.

    Subclasses define ``_make_tables()``, call ``self._fill_tables(device, dtype)`` once, and read the tables by
    ``self._tables_like(x)``.

    Shape:
        - input and output: those of the layer

    Example:
        >>> import torch
        >>> from gconv_ga.nn.authoring import KeepsTables
        >>> class Reversed(KeepsTables):
        ...     def __init__(self, channels):
        ...         super().__init__()
        ...         self.channels = channels
        ...         self._fill_tables(torch.device("cpu"), torch.float32)
        ...     def _make_tables(self):
        ...         return {"index": torch.arange(self.channels).flip(0)}
        ...     def forward(self, input):
        ...         return input.index_select(1, self._tables_like(input)["index"])
        >>> Reversed(3)(torch.arange(3).view(1, 3)), len(list(Reversed(3).buffers()))
        (tensor([[2, 1, 0]]), 0)
    """

    _table_names: tuple[str, ...] = ()
    _table_dtype: torch.dtype

    def _make_tables(self) -> dict[str, Tensor]:
        """Return the tables by the name of their attribute, as new tensors on the CPU, floats in float64."""
        raise NotImplementedError

    def _fill_tables(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make the tables on a device, those of floats in a dtype."""
        # They outlive the caller's modes.
        with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
            tables = self._make_tables()
            for name, table in tables.items():
                setattr(self, name, table.to(device, dtype if table.is_floating_point() else table.dtype))
        self._table_names, self._table_dtype = tuple(tables), dtype

    def _tables_like(self, x: Tensor) -> dict[str, Tensor]:
        """Return the tables by name, on the device of a tensor, those of floats in its dtype."""
        tables: dict[str, Tensor] = {name: getattr(self, name) for name in self._table_names}
        # Not so if a weight has been replaced or moved without its layer, as by sharding.
        if not all(_is_like(table, x) for table in tables.values()):
            self._fill_tables(x.device, x.dtype)
            tables = {name: getattr(self, name) for name in self._table_names}
        return tables

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if self._table_names:
            device = getattr(self, self._table_names[0]).device
            # Where an empty tensor goes, the tables go.
            moved = fn(torch.empty(0, dtype=self._table_dtype, device=device))
            if (moved.device, moved.dtype) != (device, self._table_dtype):
                self._fill_tables(moved.device, moved.dtype)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # With `assign=True` the weights may be on another device now, or of another dtype.
        for weight in self.parameters(recurse=False):
            self._tables_like(weight)


def _is_like(table: Tensor, x: Tensor) -> bool:
    is_index = not (table.is_floating_point() or table.is_complex())
    return table.device == x.device and (is_index or table.dtype == x.dtype)
