"""Channels that tell somebody outside: signed webhooks."""
