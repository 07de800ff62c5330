"""The durable queue: DBOS."""
