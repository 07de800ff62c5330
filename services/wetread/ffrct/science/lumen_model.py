"""What the solver knows of a tree: healthy lumen, lesions, closed parts, resistances along every branch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .boundary_conditions import Ends
from .branches import BranchTree
from .constants import Physiology
from .healthy import healthy_radii
from .lesions import Lesion, LesionRule, describe_lesion, find_narrowings
from .losses import expansion_coefficient, released
from .topology import outlets_of, path_matrix
from .tree import BoolArray, FloatArray, IntArray
from .viscous import interval_resistance


@dataclass(frozen=True)
class BranchModel:
    """One branch ready to solve; ``viscous`` (n,) is the resistance (Pa s/m3) from its start.

    ``expansion`` (n,) is the quadratic coefficient (Pa s2/m6) from its start at Kt = 1;
    ``closed`` branches carry no flow and have no FFR.
    """

    healthy_m: FloatArray
    lesions: tuple[Lesion, ...]
    viscous: FloatArray
    expansion: FloatArray
    closed: bool


@dataclass(frozen=True)
class LumenModel:
    """The whole tree; branch arrays (n_branches,), ``path`` (n_outlets, n_branches)."""

    tree: BranchTree
    branches: tuple[BranchModel, ...]
    parents: IntArray
    outlets: IntArray
    path: FloatArray
    open_outlets: BoolArray
    used: frozenset[str]

    @property
    def resistance(self) -> FloatArray:
        """Viscous resistance (n_branches,) of whole branches."""
        return np.array([branch.viscous[-1] for branch in self.branches])

    @property
    def expansion(self) -> FloatArray:
        """Quadratic coefficient (n_branches,) of whole branches at Kt = 1."""
        return np.array([branch.expansion[-1] for branch in self.branches])

    @property
    def ends(self) -> Ends:
        """Healthy radii at the ends; outlets include those behind an occlusion."""
        outlet_radius = [float(self.branches[o].healthy_m[-1]) for o in self.outlets]
        outlet_vessel = [self.tree.branches[o].last_vessel for o in self.outlets]
        roots = np.flatnonzero(self.parents < 0)
        return Ends(
            np.array(outlet_radius),
            np.array(outlet_vessel, dtype=np.int64),
            np.array([float(self.branches[r].healthy_m[0]) for r in roots]),
        )


def lesion_rule(physiology: Physiology) -> LesionRule:
    """The rule for lesions from the constants."""
    return LesionRule(
        physiology.si("lesion.onset_ratio"),
        physiology.si("lesion.end_ratio"),
        physiology.si("lesion.min_length"),
    )


def build_model(tree: BranchTree, physiology: Physiology) -> LumenModel:
    """Fit the healthy lumen, find lesions and closed branches, integrate resistances."""
    rule = lesion_rule(physiology)
    density, viscosity = physiology.si("blood.rho"), physiology.si("blood.mu")
    limit = physiology.si("occlusion.area_ratio")
    parents = tree.parents
    models: list[BranchModel] = []
    for number, (branch, healthy) in enumerate(zip(tree.branches, healthy_radii(tree, rule), strict=True)):
        s, radius = branch.s_m, branch.radius_m
        lesions = tuple(
            describe_lesion(number, narrowing, s, radius, healthy, branch.aspect_ratio, branch.calcium)
            for narrowing in find_narrowings(s, radius, healthy, rule)
        )
        steps = interval_resistance(s, radius, branch.aspect_ratio, viscosity)
        expansion = np.zeros(len(s))
        for lesion in lesions:
            expansion += released(lesion, s, radius) * expansion_coefficient(
                1.0, density, lesion.radius_throat_m, lesion.healthy_throat_m
            )
        models.append(
            BranchModel(
                healthy_m=healthy,
                lesions=lesions,
                viscous=np.concatenate([[0.0], np.cumsum(steps)]),
                expansion=expansion,
                closed=bool(np.any((radius / healthy) ** 2 < limit))
                or (branch.parent >= 0 and models[branch.parent].closed),
            )
        )
    outlets = outlets_of(parents)
    return LumenModel(
        tree=tree,
        branches=tuple(models),
        parents=parents,
        outlets=outlets,
        path=path_matrix(parents),
        open_outlets=np.array([not models[o].closed for o in outlets]),
        used=frozenset({"blood.rho", "blood.mu", "occlusion.area_ratio", "lesion.onset_ratio"}),
    )
