"""Durable orchestration: completeness, rules, tasks and their outcomes on DBOS."""
