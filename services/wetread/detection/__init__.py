"""Detectors: find them, run them in killable worker processes, on any engine."""
