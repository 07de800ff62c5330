"""Nodules of the lung on chest CT: lungs, candidates, patches, size, density and growth (research use only)."""
