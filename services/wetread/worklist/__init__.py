"""The reading worklist: UPS-RS, reading order, provider API, event stream and the page at /."""
