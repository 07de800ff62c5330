"""The vocabulary every service shares: words, no deeds.

Imports the standard library, NumPy, pydicom and pydantic only (checked by import-linter).
"""
