"""Factors between clinical units and SI; inside the science everything is SI."""

from __future__ import annotations

from typing import Final

PA_PER_MMHG: Final = 133.322
"""Pascal in one millimetre of mercury."""

M_PER_MM: Final = 1e-3
"""Metre in one millimetre."""

M3_S_PER_ML_MIN: Final = 1e-6 / 60.0
"""Cubic metre per second in one millilitre per minute."""

M3_S_PER_ML_S: Final = 1e-6
"""Cubic metre per second in one millilitre per second."""

PA_S_M3_PER_MMHG_MIN_ML: Final = PA_PER_MMHG / M3_S_PER_ML_MIN
"""Hydraulic resistance: pascal second per cubic metre in one mmHg min/mL."""
