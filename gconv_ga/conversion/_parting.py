"""The place where a network and its conversion part: the first call whose results are not rotations of one another."""

import linecache
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..actions import GridMove, move_grid, nest_leaves
from ._layers import Layout, layout_of, mark
from ._network import ConvertedNetwork

Place = tuple[str, str, int]  # name of a function, file, line

_OWN_FOLDER = f"{Path(__file__).parents[1]}{os.sep}"
_TORCH_FOLDER = f"{Path(torch.__file__).parent}{os.sep}"


class Call(NamedTuple):
    """One call of a function, or of a module that is converted as one.

    Args:
        name: The name of the function, or the path of the module.
        file: The file of the call; empty for modules.
        line: Its line.
        path: The path of the module that calls.
        output: The first tensor that came out.
        reads_table: Whether an operand is a table that does not depend on the input.
    """

    name: str
    file: str
    line: int
    path: str
    output: Tensor
    reads_table: bool = False

    @property
    def place(self) -> Place:
        """Return what the same call of the two networks has in common."""
        return self.name, self.file, self.line


class Parting(NamedTuple):
    """The first call at which the two networks differ.

    Args:
        text: Its description.
        place: Its place, if it is the call of a function.
    """

    text: str
    place: Place | None


# Reasons, by the name of the function.
_REASONS = {
    "add": "a table that has numbers of its own for each place, such as a position embedding",
    "linear": "a linear layer along an axis of places has weights of its own for each",
    "scaled_dot_product_attention": "attention within windows or with a bias for pairs of places knows directions",
    "__getitem__": "a cut of an axis of places, as windows are cut, starts at one end",
    "cumsum": "a sum along rows or columns starts at one end",
    "arange": "numbers that count rows or columns start at one end",
    "roll": "it shifts rows or columns in one direction",
}
_REASONS |= dict.fromkeys(("__add__", "__iadd__", "add_", "mul", "__mul__", "__imul__", "mul_"), _REASONS["add"])


def find_parting(net: ConvertedNetwork, plain: nn.Module, plain_inputs: list[Any], inputs: Any) -> Parting | None:
    """Return the first call at which the two networks differ, None if none is found.

    Args:
        net: The converted network.
        plain: The plain network.
        plain_inputs: For each element, the inputs that the plain network gets.
        inputs: The inputs of the converted network.
    """
    single = {row.path for row in net.report.rows if row.action in ("swap", "conjugate")}
    ours = _record(net, net.model, single, inputs)
    order, batch = net.group.order, inputs[0].shape[0]
    best: tuple[int, Call] | None = None
    for g in range(order):
        theirs = _record(plain, plain, single, plain_inputs[g])
        for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a.place != b.place:
                break
            if not _agree(a.output, b.output, g, batch, net.orientation_moves):
                if best is None or i < best[0]:
                    best = i, a
                break
    if best is None:
        return None
    call = best[1]
    where = f"{call.path or '(model)'} ({type(plain.get_submodule(call.path)).__name__})"
    if not call.file:
        return Parting(where, None)
    is_known = call.name in _REASONS and (call.reads_table or _REASONS[call.name] != _REASONS["add"])
    reason = f" ({_REASONS[call.name]})" if is_known else ""
    return Parting(f"{call.name}() in {where}, {quote(call.file, call.line)}{reason}", call.place)


def quote(file: str, line: int) -> str:
    """Return a source line with its place."""
    source = linecache.getline(file, line).strip()
    return f"{Path(file).name}:{line}" + (f": {source}" if source else "")


def place_of(func: Any) -> Place:
    """Return the place from which a function is being called."""
    return getattr(func, "__name__", str(func)), *_caller()


def failing_line(error: BaseException) -> str:
    """Return the innermost line of the network's own code that an error came through, with its place; "" if none."""
    found, step = "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not file.startswith((_OWN_FOLDER, _TORCH_FOLDER, "<")):
            found = quote(file, step.tb_lineno)
        step = step.tb_next
    return found


def _agree(y: Tensor, plain: Tensor, g: int, batch: int, moves: Sequence[GridMove]) -> bool:
    layout, order, move = layout_of(y) or Layout(), len(moves), moves[g]
    inner = layout.inner
    if inner == 1 and y.ndim and plain.ndim and y.shape[0] == order * plain.shape[0] and plain.shape[0] % batch == 0:
        inner = plain.shape[0] // batch  # windows, for example, of which nothing is noted
    if not layout.is_orbit or (y.shape == plain.shape and torch.equal(y, plain)):
        return True  # it does not depend on the input
    if y.ndim == 0 or y.shape[0] % (order * inner):
        return True  # nothing that belongs to an orientation
    own = y.unflatten(0, (-1, order, inner))[:, g].flatten(0, 1)
    if own.numel() != plain.numel() or not own.is_floating_point():
        return own.numel() == plain.numel()
    scale = float(plain.abs().max()) or 1.0
    if layout.axes and own.ndim == plain.ndim:
        moved = move_grid(plain.movedim(layout.axes, (-2, -1)), move).movedim((-2, -1), layout.axes)
        if moved.shape != own.shape:
            return False
        return bool((moved - own).abs().max() <= 1e-9 * scale)
    # Tokens may come in another order: the same numbers, at least.
    return bool((own.flatten().sort().values - plain.flatten().sort().values).abs().max() <= 1e-9 * scale)


class _Recorder:
    """Records the calls of a network: those of functions, and of some modules the end in place of what is inside.

    Args:
        single: The paths of these modules.
    """

    def __init__(self, single: set[str]) -> None:
        self.single = single
        self.calls: list[Call] = []
        self.running: list[str] = []

    def observe(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        """Record the call of a function."""
        if not self.running or any(path in self.single for path in self.running):
            return
        name, file, line = place_of(func)
        if file:
            self._add(name, file, line, output, any(map(_is_table, args)))

    def hooks(self, path: str, module: nn.Module) -> list[Any]:
        """Follow a module, and return the handles of the hooks for it."""

        def enter(module: nn.Module, args: Any) -> None:
            self.running.append(path)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self.running.pop()
            if path in self.single and not any(outer in self.single for outer in self.running):
                self.running.append(path)
                self._add(path, "", 0, output)
                self.running.pop()

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def _add(self, name: str, file: str, line: int, output: Any, reads_table: bool = False) -> None:
        tensor = next((x for _, x in nest_leaves(output, "") if isinstance(x, Tensor)), None)
        if tensor is None or isinstance(tensor, nn.Parameter):
            return
        layout = layout_of(tensor)
        # A copy, since what follows may write into it, and one that is no call of the network's.
        with torch._C.DisableTorchFunction():  # noqa: SLF001  torch has no public name
            copied = tensor.detach().clone()
        copied = mark(copied, layout) if layout else copied
        self.calls.append(Call(name, file, line, self.running[-1], copied, reads_table))


def _is_table(x: Any) -> bool:
    """Return whether an argument is a tensor with places that does not depend on the input."""
    if not isinstance(x, Tensor) or x.ndim < 2:
        return False
    layout = layout_of(x)
    return layout is None or not layout.is_orbit


@torch.no_grad()
def _record(network: nn.Module, model: nn.Module, single: set[str], inputs: Any) -> list[Call]:
    """Return the calls of a network. One that fails has made the calls up to there."""
    recorder = _Recorder(single)
    hooks = [hook for path, module in model.named_modules() for hook in recorder.hooks(path, module)]
    try:
        with _observed(network, recorder.observe):
            network(*inputs)
    except Exception:  # noqa: BLE001  whatever the network raises, the calls before it are of interest
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.calls


def _caller() -> tuple[str, int]:
    """Return file and line of the innermost frame of the network's own code, or else of torch's modules."""
    frame = sys._getframe(1)  # noqa: SLF001  the inspect module would read every source file on the way
    found = "", 0
    while frame is not None:
        file, ours = frame.f_code.co_filename, frame.f_code.co_filename == __file__
        if ours and frame.f_code.co_name == _record.__name__:
            break
        if not file.startswith((_OWN_FOLDER, _TORCH_FOLDER)) and not file.startswith("<"):
            return file, frame.f_lineno
        if not found[0] and file.startswith(_TORCH_FOLDER) and "modules" in file:
            found = file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return found


class _Watch(TorchFunctionMode):
    def __init__(self, observe: Callable[[Any, Any, Any], None]) -> None:
        super().__init__()
        self.observe = observe

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.observe(func, args, output)
        return output


@contextmanager
def _observed(network: nn.Module, observe: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    if not isinstance(network, ConvertedNetwork):
        with _Watch(observe):
            yield
        return
    network.observe = observe
    try:
        yield
    finally:
        network.observe = None
