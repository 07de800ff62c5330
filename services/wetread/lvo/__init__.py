"""Large-vessel occlusion on head CT angiograms: vessels, symmetry, what is missing on one side (research use only)."""
