"""`without_escnn`: what a user's file that imports escnn finds where escnn is not installed."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn

from . import _geometric

ROOMS = ("escnn", "escnn.nn", "escnn.gspaces", "escnn.group", "escnn.nn.modules")


class EquivariantModule(nn.Module):
    """Stand-in for escnn's base class of the same name, for a user's own modules.

    Shape:
        - input and output: geometric tensors, as the user's forward says
    """

    def __init__(self) -> None:
        super().__init__()
        self.in_type = self.out_type = None


class _Absent(EquivariantModule):
    """Stand-in for anything else of escnn: it can be imported and inherited from, but not called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        text = (
            f"escnn is not installed, and {type(self).__name__} of it was called. A converted network can be loaded, "
        )
        raise ModuleNotFoundError(text + "run and trained without escnn; building one needs it.", name="escnn")


class _AbsentModule(ModuleType):
    """A module of escnn: the stand-ins by their names, and classes that say what is missing by all others."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = {
            "EquivariantModule": EquivariantModule,
            "FieldType": _geometric.FieldType,
            "GeometricTensor": _geometric.GeometricTensor,
            "tensor_directsum": _geometric.tensor_directsum,
        }.get(name) or type(name, (_Absent,), {"__module__": self.__name__})
        setattr(self, name, found)
        return found


@contextmanager
def without_escnn() -> Iterator[None]:
    """Context in which a network that `from_escnn` made of a user's class is loaded where escnn is not installed.

    Such a network keeps the user's class and its forward. Its file holds no object of escnn, but the user's own Python
    file may import escnn, for its other parts. In this context those imports find light stand-ins: the base class
    ``EquivariantModule``, ``GeometricTensor``, ``FieldType`` and ``tensor_directsum`` work on converted networks;
    everything else can be imported and inherited from, and raises an error once it is called. Where escnn is
    installed, nothing changes.

    A forward that imports escnn itself, each time it runs, must run in this context too.

    Example:
        >>> from gconv_ga.interop import without_escnn
        >>> with without_escnn():  # then: from my_networks import Net, or torch.load("net.pt", weights_only=False)
        ...     import escnn.nn as enn
        >>> enn.EquivariantModule.__name__
        'EquivariantModule'
    """
    if "escnn" in sys.modules or importlib.util.find_spec("escnn"):
        yield
        return
    modules = {name: _AbsentModule(name) for name in ROOMS}
    for name, module in modules.items():
        module.__path__ = []
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
