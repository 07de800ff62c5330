"""Brain perfusion from a dynamic series: flow, volume, transit time, Tmax, core and mismatch (research use only)."""
