"""Measuring detectors: pure metrics, cases with truth, the loop over them, and the report."""
