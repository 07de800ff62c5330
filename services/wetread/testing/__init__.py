"""Shipped test support: phantoms with known truth, contract suites, server start-up."""
