"""Adapters of the port ``TaskPool``."""
