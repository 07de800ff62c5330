"""Credentials: the only source of the tenant."""
