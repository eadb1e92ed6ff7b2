"""Groups with a fault, for which the identities must fail."""

from gconv_ga.groups import CyclicGroup


class WrongInverse(CyclicGroup):
    """The inverse rotates in the wrong direction."""

    def inverse(self, g: int) -> int:
        return g


class NeverBackByAQuarter(CyclicGroup):
    """Inverses are rotations by 0 and 180 degrees only, so a sum over the group omits and repeats elements."""

    def inverse(self, g: int) -> int:
        return (0, 2, 2, 0)[g]
