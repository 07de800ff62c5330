"""What every FFR output says after the research-use statement."""

from typing import Final

FFR_DISCLAIMER: Final = "CT-derived FFR computed from CT by wetread."
