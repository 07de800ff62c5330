"""Our own Navier-Stokes reference set and what is fitted to it; nothing here runs in a request."""
