"""Size category of a nodule by table: the size and density rows of Lung-RADS v2022 (American College of Radiology).

A look-up and nothing more: no benign features, no lymph-node shape, no patient history, so it is called a size category
and never a Lung-RADS assessment. Diameters are means of two axial diameters, rounded as the table is meant to be read
(to a tenth of a millimetre here).
"""

from __future__ import annotations

from typing import Final, Literal

from wetread.nodule.measure import Solidity

Category = Literal["2", "3", "4a", "4b"]
SOLID_MM: Final[tuple[tuple[float, Category], ...]] = ((6.0, "2"), (8.0, "3"), (15.0, "4a"))
"""Upper limits of the mean diameter at a first scan; beyond the last: 4b."""
NEW_SOLID_MM: Final[tuple[tuple[float, Category], ...]] = ((4.0, "2"), (6.0, "3"), (8.0, "4a"))
"""The same for a solid nodule that a prior scan did not show."""
PART_SOLID_TOTAL_MM: Final = 6.0
PART_SOLID_CORE_MM: Final[tuple[tuple[float, Category], ...]] = ((6.0, "3"), (8.0, "4a"))
GROUND_GLASS_MM: Final = 30.0


def category(solidity: Solidity, diameter_mm: float, solid_mm: float = 0.0, *, new: bool = False) -> Category:
    """Category of a nodule of *diameter_mm* with a solid part of *solid_mm*; *new*: a prior scan did not show it."""
    diameter, core = round(diameter_mm, 1), round(solid_mm, 1)
    if solidity == "ground_glass":
        return "2" if diameter < GROUND_GLASS_MM else "3"
    if solidity == "solid":
        return _below(NEW_SOLID_MM if new else SOLID_MM, diameter)
    if diameter < PART_SOLID_TOTAL_MM:
        return "3" if new else "2"
    if new:
        return "4a" if core < 4.0 else "4b"
    return _below(PART_SOLID_CORE_MM, core)


def _below(limits: tuple[tuple[float, Category], ...], value: float) -> Category:
    return next((name for limit, name in limits if value < limit), "4b")
