"""Adapters: the only code that knows a driver, a framework or a cloud SDK. One SDK, one place."""
