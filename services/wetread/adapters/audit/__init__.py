"""The audit trail: who did what, when, to which study, with which outcome."""
