"""Engines behind ``core.ports.inference.InferenceClient``."""
