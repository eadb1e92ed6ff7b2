"""Packages that import their public names on first use, so that the command line answers without loading torch."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from ._validate import missing_extra


def lazy_names(
    package: str, files: Mapping[str, Sequence[str]], extra: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package that imports its public names on first use.

    Type checkers do not follow it: repeat the imports under ``if TYPE_CHECKING``.

    Args:
        package: Name of the package, ``__name__``.
        files: Public names by the module that defines them; under ``""`` the submodules that are public themselves.
        extra: Extra that brings a missing package. None if the package needs torch alone.

    Example:
        >>> from gconv_ga._lazy import lazy_names
        >>> load, _ = lazy_names("collections", {"abc": ["Mapping"]})
        >>> load("Mapping")
        <class 'collections.abc.Mapping'>
    """
    modules = {name: f".{file}" if file else f".{name}" for file, names in files.items() for name in names}
    submodules = set(files.get("", ()))

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(modules[name], package)
        except ModuleNotFoundError as error:
            if extra is None:
                raise
            raise missing_extra(package, extra, error) from error
        value = module if name in submodules else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return load, names
