"""Contract suites, one per port and one for detectors: subclass or parametrise once per adapter or folder."""
