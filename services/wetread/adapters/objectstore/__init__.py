"""Bytes: append-only segment files, computed artifacts, and the same in memory."""
