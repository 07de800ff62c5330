"""Tracer kinetics in closed form, and the perfusion phantom against its own truth."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.testing.phantoms import tracer
from wetread.testing.phantoms.errors import PhantomSeedError, PhantomSpecError
from wetread.testing.phantoms.perfusion import perfusion_phantom, render_perfusion, without_noise
from wetread.testing.phantoms.perfusion_parameters import draw_perfusion

GRID = tracer.time_grid(80.0)
SMALL = {"matrix": 64, "planes": 3, "step_mm": 10.0, "interval_s": 2.0, "duration_s": 50.0, "side": "left"}


@pytest.mark.parametrize("kind", tracer.RESIDUES)
@pytest.mark.parametrize("mtt", [2.0, 6.0])
def test_a_residue_starts_full_and_its_area_is_the_transit_time(kind, mtt) -> None:
    residue = tracer.residue(GRID, kind, mtt)
    assert residue[0] == pytest.approx(1.0)
    assert np.trapezoid(residue, GRID) == pytest.approx(mtt, rel=0.01)
    assert (np.diff(residue) <= 1e-9).all()


def test_tissue_holds_the_blood_volume_share_of_the_arterial_area() -> None:
    """Area of tissue over area of artery = CBV x density / haematocrit factor (indicator dilution)."""
    arterial = tracer.bolus(GRID, arrival_s=5, alpha=3, beta_s=1.5, peak=300, recirculation=0.0)
    curve = tracer.tissue(arterial, tracer.residue(GRID, "exponential", 4.0), 60.0)
    cbv = 60.0 * 4.0 / 60.0 / 100.0
    assert curve.sum() / arterial.sum() == pytest.approx(cbv * 1.04 / tracer.HAEMATOCRIT_FACTOR, rel=0.01)


def test_dispersion_keeps_the_area_and_delays_the_centre() -> None:
    arterial = tracer.bolus(GRID, arrival_s=5, alpha=3, beta_s=1.5, peak=300, recirculation=0.0)
    smeared = tracer.dispersed(arterial, 2.0)
    assert smeared.sum() == pytest.approx(arterial.sum(), rel=0.01)
    centre = (GRID * smeared).sum() / smeared.sum() - (GRID * arterial).sum() / arterial.sum()
    assert centre == pytest.approx(2.0, abs=0.1)
    assert tracer.delayed(arterial, 3.0).argmax() - arterial.argmax() == pytest.approx(30, abs=1)


def test_the_same_seed_gives_the_same_images_and_another_gives_others() -> None:
    one, same = perfusion_phantom(2_000_000, **SMALL), perfusion_phantom(2_000_000, **SMALL)
    assert np.array_equal(one.images, same.images)
    assert not np.array_equal(one.images, perfusion_phantom(2_000_001, **SMALL).images)


def test_voxels_show_the_enhancement_of_their_truth() -> None:
    """Without noise and delay the area of a tissue voxel is its blood volume share of the arterial area."""
    spec = without_noise(draw_perfusion(2_000_003, **SMALL, recirculation=0.0, delay_s=0.0, vein_delay_s=5.0))
    made = render_perfusion(spec)
    truth = made.truth
    healthy = np.isfinite(truth.cbv) & ~truth.hypoperfused
    area = (made.images - made.images[0])[:, healthy].sum(axis=0)
    wanted = truth.cbv[healthy] / 100.0 * 1.04 / tracer.HAEMATOCRIT_FACTOR * made.arterial.sum()
    assert np.median(area / wanted) == pytest.approx(1.0, abs=0.03)


def test_the_truth_is_a_core_within_late_tissue_on_the_named_side() -> None:
    made = perfusion_phantom(2_000_004, **{**SMALL, "side": "right"}, core_share=0.6)
    truth = made.truth
    assert 0 < truth.core_ml < truth.hypoperfused_ml
    assert not (truth.core & ~truth.hypoperfused).any()
    columns = np.argwhere(truth.hypoperfused)[:, 2]
    assert columns.mean() < (made.spec.matrix - 1) / 2  # columns run to the patient's left


def test_mr_gets_darker_and_ct_brighter() -> None:
    for modality, sign in (("CT", 1.0), ("MR", -1.0)):
        made = perfusion_phantom(2_000_005, **SMALL, modality=modality)
        tissue = np.isfinite(made.truth.cbf) & ~made.truth.hypoperfused
        change = made.images[:, tissue].mean(axis=1) - made.images[:2, tissue].mean()
        assert sign * change[np.abs(change).argmax()] > 2.0


def test_defects_are_what_they_are_called() -> None:
    assert len(perfusion_phantom(2_000_006, **SMALL, cut_after_s=20.0).images) == 10
    steps = np.diff(perfusion_phantom(2_000_006, **SMALL, lost_points=3).times_s[:, 0])
    assert steps.max() == pytest.approx(8.0)
    still = perfusion_phantom(2_000_006, **SMALL, bolus=False).images
    assert np.abs(still[10:].mean(axis=0) - still[:10].mean(axis=0)).max() < 20.0
    shuttle = perfusion_phantom(2_000_006, **SMALL, shuttle=True).times_s
    assert shuttle[0].tolist() == pytest.approx([0.0, 2 / 3, 4 / 3])


@pytest.mark.parametrize("split", ["s0", "s1", "s2", "s3", "s4"])
def test_splits_own_their_seeds(split) -> None:
    base = {"s0": 2_000_000, "s1": 3_000_000, "s2": 3_100_000, "s3": 3_200_000, "s4": 3_300_000}[split]
    assert draw_perfusion(base, split=split).split == split
    with pytest.raises(PhantomSeedError):
        draw_perfusion(1, split=split)


def test_unknown_parameters_and_impossible_values_are_refused() -> None:
    with pytest.raises(PhantomSpecError, match="nosuch"):
        draw_perfusion(2_000_000, nosuch=1)
    with pytest.raises(PhantomSpecError):
        draw_perfusion(2_000_000, noise=-1.0)
