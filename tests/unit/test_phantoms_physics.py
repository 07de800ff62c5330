"""The physics tier against closed forms, and the fast tier against the physics tier."""

import numpy as np
import pytest

from wetread.testing.phantoms import HeadSpec, PhantomSpecError, physics
from wetread.testing.phantoms.acquisition import KERNELS, blur, coloured_noise
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.stack import draw_stack

SIZE = 128
RADIUS = 45.0
AXIS = np.arange(SIZE) - (SIZE - 1) / 2


def disc(radius: float = RADIUS, fine: int = 8) -> np.ndarray:
    """An anti-aliased unit disc."""
    axis = (np.arange(SIZE * fine) + 0.5) / fine - SIZE / 2
    sharp = (axis[None, :] ** 2 + axis[:, None] ** 2 < radius**2).astype(np.float32)
    return sharp.reshape(SIZE, fine, SIZE, fine).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def sinogram():
    return physics.project(disc()[None], 1.0, 90)


@pytest.fixture(scope="module")
def scanned():
    """A water disc scanned at 5 mm with both tiers' noise: (physics HU, drawn stack)."""
    draw = Draw(np.random.default_rng(4), "train")
    stack = draw_stack(draw, HeadSpec(thickness_mm=5.0, step_mm=5.0))
    slices = np.repeat((disc()[None] - 1.0) * 1000.0, 6, axis=0).astype(np.float32)
    image, _ = physics.scan(draw, stack, slices, "soft", 120)
    return image, stack


def test_line_integrals_of_a_disc_are_chords(sinogram):
    chord = 2 * np.sqrt(np.clip(RADIUS**2 - AXIS**2, 0, None))
    inner = np.abs(AXIS) < RADIUS - 3
    error = np.abs(sinogram[0][:, inner] - chord[inner]) / chord[inner]
    assert error.max() < 0.02


def test_every_view_holds_the_same_mass(sinogram):
    mass = sinogram[0].sum(axis=1)
    assert mass == pytest.approx(np.full(90, np.pi * RADIUS**2), rel=0.005)


def test_reconstruction_gives_the_disc_back(sinogram):
    image = physics.reconstruct(sinogram, 1.0, 0.8, 0.0)[0]
    radius = np.hypot(AXIS[None, :], AXIS[:, None])
    assert image[radius < RADIUS - 5].mean() == pytest.approx(1.0, abs=0.01)
    assert np.abs(image[(radius > RADIUS + 6) & (radius < 60)]).mean() < 0.03


def test_water_is_flat_and_near_zero_after_water_correction(scanned):
    image, _ = scanned
    radius = np.hypot(AXIS[None, :], AXIS[:, None])
    mean = image.mean(axis=0)
    assert abs(mean[radius < 30].mean()) < 6
    assert abs(mean[radius < 10].mean() - mean[(radius > 25) & (radius < 38)].mean()) < 6


def test_noise_falls_with_dose_squared_root():
    def noise(seed, thickness):
        draw = Draw(np.random.default_rng(seed), "train")
        stack = draw_stack(draw, HeadSpec(thickness_mm=thickness, step_mm=5.0))
        slices = (disc()[None] - 1.0).astype(np.float32) * 1000
        draw.rng = np.random.default_rng(seed)
        image, _ = physics.scan(draw, stack, slices, "soft", 120)
        return image[0][np.hypot(AXIS[None, :], AXIS[:, None]) < 30].std()

    assert noise(1, 1.25) / noise(1, 5.0) == pytest.approx(2.0, rel=0.25)


def radial_spectrum(slices: np.ndarray, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    part = slices[:, 44:84, 44:84]
    part = part - part.mean(axis=0) if len(part) > 2 else part - part.mean()
    power = (np.abs(np.fft.fft2(part)) ** 2).mean(axis=0)
    frequency = np.fft.fftfreq(40, pixel_mm)
    radial = np.hypot(frequency[:, None], frequency[None, :])
    edges = np.linspace(0, 0.5 / pixel_mm, 11)
    which = np.digitize(radial.ravel(), edges)
    values = np.array([power.ravel()[which == i].mean() for i in range(1, 11)])
    return (edges[:-1] + edges[1:]) / 2, values


def test_both_tiers_have_the_noise_spectrum_of_back_projection(scanned):
    image, stack = scanned
    centre, slow = radial_spectrum(image, stack.render_mm)
    rng = np.random.default_rng(2)
    noise = coloured_noise(rng, (6, SIZE, SIZE), stack.render_mm, KERNELS["soft"][0])
    _, fast = radial_spectrum(noise, stack.render_mm)
    for power in (slow, fast):
        peak = int(power.argmax())
        assert 0 < peak < 8  # neither flat nor piled up at zero: a ramp, then a roll-off
        assert power[0] < 0.8 * power[peak]
        assert power[-1] < 0.5 * power[peak]
    mean = [float((centre * power).sum() / power.sum()) for power in (slow, fast)]
    assert mean[1] == pytest.approx(mean[0], rel=0.35)


def edge_width(image: np.ndarray, pixel_mm: float) -> float:
    """10-90 % width of the disc's edge, mm."""
    radius = np.hypot(AXIS[None, :], AXIS[:, None]).ravel()
    order = np.argsort(radius)
    near = order[np.abs(radius[order] - RADIUS) < 6]
    bins = np.round((radius[near] - RADIUS) * 4).astype(int)
    profile = np.array([image.ravel()[near][bins == b].mean() for b in range(-20, 21)])
    high, low = profile[:6].mean(), profile[-6:].mean()
    share = (profile - low) / (high - low)
    return float(((share < 0.9) & (share > 0.1)).sum() / 4 * pixel_mm)


def test_both_tiers_blur_an_edge_alike(scanned):
    image, stack = scanned
    sharp = ((disc()[None] - 1.0) * 1000.0).astype(np.float32)
    fast = blur(stack, sharp, "soft")[0]
    slow = image.mean(axis=0)
    widths = edge_width(slow, stack.render_mm), edge_width(fast, stack.render_mm)
    assert 0.5 < widths[1] / widths[0] < 2.0
    assert max(widths) < 4.0


def test_both_tiers_agree_on_the_mean_and_shape_of_the_histogram(scanned):
    image, _ = scanned
    radius = np.hypot(AXIS[None, :], AXIS[:, None])
    values = image[:, radius < 30].ravel()
    rng = np.random.default_rng(3)
    fast = coloured_noise(rng, (6, SIZE, SIZE), 0.9, KERNELS["soft"][0])[:, radius < 30].ravel()
    for sample in ((values - values.mean()) / values.std(), fast / fast.std()):
        assert np.percentile(sample, [5, 25, 75, 95]) == pytest.approx([-1.64, -0.67, 0.67, 1.64], abs=0.12)


def test_an_impossible_tube_voltage_is_refused():
    assert physics.spectrum(120).sum() == pytest.approx(1.0)
    assert (physics.spectrum(140) @ physics.ENERGIES) > (physics.spectrum(80) @ physics.ENERGIES)
    with pytest.raises(PhantomSpecError):
        physics.spectrum(20)
