"""The docstrings of the public names: what a reader needs is there, and names what the signature names."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator

import pytest
import torch
from house import load, public_names

# They raise when the value is wrong, so who calls them raises.
VALIDATORS = {"as_int", "as_pair", "one_of", "as_group", "as_action"}


def section(docstring: str, title: str) -> str:
    """The indented text under a title such as "Args:"; empty if there is none."""
    found = re.search(rf"^{title}:\n((?:[ ]+.*\n|\n)*)", docstring + "\n", re.MULTILINE)
    return found[1] if found else ""


def parameters(thing: object, *, variadic: bool = False) -> list[str]:
    """The names that a caller can pass, or those of ``*args`` and ``**kwargs``."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = inspect.signature(thing).parameters.items()
    return [name for name, parameter in named if (parameter.kind in kinds) == variadic]


def raises(thing: object) -> bool:
    """Whether the code itself, not what it calls, refuses an argument."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError):  # made by dataclass: there is no source
        return False
    nodes = list(ast.walk(tree))
    called = {ast.unparse(node.func).rpartition(".")[2] for node in nodes if isinstance(node, ast.Call)}
    return any(isinstance(node, ast.Raise) for node in nodes) or bool(called & VALIDATORS)


def own(cls: type, *names: str) -> list[object]:
    """The methods of these names that a class defines itself."""
    return [vars(cls)[name] for name in names if inspect.isfunction(vars(cls).get(name))]


def faults(thing: type | object) -> Iterator[str]:
    """What a public class or function's docstring lacks."""
    docstring = inspect.cleandoc(thing.__doc__ or "")
    if not docstring:
        yield "a docstring"
        return
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return  # an exception is raised, not called
    entries = set(re.findall(r"^ {4}(\w+):", section(docstring, "Args"), re.MULTILINE))
    yield from (f"an entry in Args for {name}" for name in parameters(thing) if name not in entries)
    known = {*parameters(thing), *parameters(thing, variadic=True)}
    yield from (f"no entry in Args for {name}: it takes none" for name in sorted(entries - known))
    built = own(thing, "__init__", "__post_init__", "forward", "__call__") if inspect.isclass(thing) else [thing]
    if any(raises(method) for method in built) and not section(docstring, "Raises"):
        yield "Raises, since it raises"
    if not inspect.isabstract(thing) and not re.search(r"^ {4,}>>> ", section(docstring, "Example"), re.MULTILINE):
        yield "an Example that runs"
    if inspect.isclass(thing):
        if issubclass(thing, torch.nn.Module) and not section(docstring, "Shape"):
            yield "the Shape of what goes in and out"
        yield from method_faults(thing)


def method_faults(cls: type) -> Iterator[str]:
    """What the docstrings of a class's own methods and properties lack; an override may keep what it overrides."""
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or name == "forward" or not inspect.isfunction(function):
            continue
        docstring = inspect.getdoc(getattr(cls, name))
        if not docstring:
            yield f"{name}: a docstring"
        elif function.__doc__ and raises(function) and not section(inspect.cleandoc(docstring), "Raises"):
            yield f"{name}: Raises, since it raises"


@pytest.mark.parametrize("module", public_names())
def test_docstrings_have_what_a_reader_needs(module):
    room = load(module)
    things = {name: getattr(room, name) for name in public_names()[module]}
    ours = {name: thing for name, thing in things.items() if inspect.isclass(thing) or inspect.isfunction(thing)}
    lacking = [f"{name} needs {fault}" for name, thing in ours.items() for fault in faults(thing)]
    assert not lacking, "\n".join(lacking)


@pytest.mark.parametrize("module", public_names())
def test_a_room_shows_an_example(module):
    if module == "gconv_ga":
        pytest.skip("the root's example is README's")
    assert ">>> " in (load(module).__doc__ or "")


def good(size: int, *, mode: str = "mean") -> int:
    """One line.

    Args:
        size: What it is.
        mode: What it does, over
            two lines.

    Raises:
        ValueError: The size is negative.

    Example:
        >>> good(1)
        1
    """
    if size < 0:
        raise ValueError(mode)
    return size


class Layer(torch.nn.Module):
    """One line.

    Args:
        size: What it is.

    Shape:
        ``[B, C]`` in, ``[B, C]`` out.

    Raises:
        ValueError: The size is negative.

    Example:
        >>> Layer(1)
        Layer()
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        good(size)
        if size < 0:
            raise ValueError("size")

    def told(self) -> int:
        """One line."""
        return 1


def test_good_docstrings_are_accepted():
    assert list(faults(good)) == []
    assert list(faults(Layer)) == []


@pytest.mark.parametrize(
    ("cut", "paste", "fault"),
    [
        ("    mode: What", "    way: What", "an entry in Args for mode"),
        ("    mode: What", "    way: What", "no entry in Args for way: it takes none"),
        ("Args:", "", "an entry in Args for size"),
        ("Raises:", "", "Raises, since it raises"),
        (">>> good(1)", "", "an Example that runs"),
        ("Example:", "", "an Example that runs"),
    ],
)
def test_a_function_with_a_poor_docstring_is_seen(cut, paste, fault, monkeypatch):
    monkeypatch.setattr(good, "__doc__", good.__doc__.replace(cut, paste))
    assert fault in list(faults(good))


@pytest.mark.parametrize(
    ("title", "fault"),
    [
        ("Args:", "an entry in Args for size"),
        ("Shape:", "the Shape of what goes in and out"),
        ("Raises:", "Raises, since it raises"),
    ],
)
def test_a_layer_with_a_poor_docstring_is_seen(title, fault, monkeypatch):
    monkeypatch.setattr(Layer, "__doc__", Layer.__doc__.replace(title, ""))
    assert fault in list(faults(Layer))


def test_a_thing_without_a_docstring_is_seen(monkeypatch):
    monkeypatch.setattr(good, "__doc__", None)
    monkeypatch.setattr(Layer.told, "__doc__", None)
    assert list(faults(good)) == ["a docstring"]
    assert list(faults(Layer)) == ["told: a docstring"]


def test_a_method_that_raises_must_say_so(monkeypatch):
    def told(self):
        """One line."""
        raise ValueError("told")

    monkeypatch.setattr(Layer, "told", told)
    assert list(faults(Layer)) == ["told: Raises, since it raises"]
