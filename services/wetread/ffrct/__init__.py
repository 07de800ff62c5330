"""CT-derived FFR: pressure and flow along the coronary tree (research use only)."""
