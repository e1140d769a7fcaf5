"""Which leg a scan of one leg shows, where neither its user nor the other leg tells."""

from __future__ import annotations

from dataclasses import dataclass

from musclekit.labels import Side

__all__ = ["SideGuess", "guessed_side"]

#: A leg that looks as much like a left one as like a right one, within this, is told of.
LEAST_APART = 0.02
#: Looks that speak this strongly for a side are believed against where the leg lay. Of seven patients of whose other
#: leg nothing is in view three looked more like the wrong side, by 0.03 at most, four like theirs, by up to 0.13.
STRONG = 0.1


@dataclass(frozen=True)
class SideGuess:
    """A side that was guessed.

    Parameters
    ----------
    side : {"left", "right"}
        For which it is taken.
    placed : {"left", "right"} or None
        On which side of the scanner's middle it lay; None where that says nothing.
    leaning : float
        By how much surer the network was of a right leg than of a left one.
    """

    side: Side
    placed: Side | None
    leaning: float

    @property
    def note(self) -> str:
        """What a reader has to know."""
        looks: Side = "right" if self.leaning >= 0 else "left"
        if self.placed is None:
            doubt = ", but not by much: say which it is (side)" if abs(self.leaning) < LEAST_APART else ""
            return f"the scan does not tell the side of the leg; it looks like a {self.side} one{doubt}"
        if looks == self.placed:
            return f"the scan does not tell the side of the leg; it lay on the {self.side} and looks like a {looks} one"
        return (
            f"the scan does not tell the side of the leg; it lay on the {self.placed}, but looks like a {looks} one, "
            f"and is taken for a {self.side} one: say which it is (side)"
        )


def guessed_side(leaning: float, placed: Side | None) -> SideGuess:
    """Guess the side of a leg.

    Parameters
    ----------
    leaning : float
        By how much surer the network is of a right leg than of a left one.
    placed : {"left", "right"} or None
        On which side of the scanner's middle it lay (`musclekit.anatomy.side_by_position`): that goes before what it
        looks like, unless it looks very much like the other one.
    """
    looks: Side = "right" if leaning >= 0 else "left"
    side = looks if placed is None or abs(leaning) >= STRONG else placed
    return SideGuess(side, placed, leaning)
