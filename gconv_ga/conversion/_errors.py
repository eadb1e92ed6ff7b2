"""The one error of this room."""


class NotConvertible(TypeError):  # noqa: N818  the name says it; its users read "except NotConvertible"
    """A network that `convert` cannot turn into one equal to its group average; the message says where and why."""
