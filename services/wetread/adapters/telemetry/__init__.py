"""Logs and metrics. Neither ever holds a patient name, an identifier or a UID in clear."""
