"""Pure haemodynamics: arrays and frozen dataclasses in, frozen dataclasses out; NumPy and SciPy only."""
