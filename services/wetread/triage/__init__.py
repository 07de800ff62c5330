"""Triage: from a result to priority, due time and notification."""
