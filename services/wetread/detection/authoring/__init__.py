"""For people who write detectors: a new folder, its golden case, its card."""
