"""Groups with a mistake, which the identities must not survive."""

from gconv_ga.groups import CyclicGroup


class WrongInverse(CyclicGroup):
    """Turns on where it should turn back."""

    def inverse(self, g: int) -> int:
        return g


class NeverBackByAQuarter(CyclicGroup):
    """Turns back by half turns only, so that a sum over the group misses some elements and counts others twice."""

    def inverse(self, g: int) -> int:
        return (0, 2, 2, 0)[g]
