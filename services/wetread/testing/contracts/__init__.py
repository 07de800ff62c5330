"""Contract suites: one class per port or plug-in, subclassed once per implementation."""
