"""The research-use-only statement that every output of wetread carries, word for word."""

RUO_STATEMENT = (
    "Research use only. Not a medical device. Not for diagnosis or patient care. "
    "Bundled models are trained and measured on synthetic physics-based phantoms; "
    "their accuracy on patients is unknown."
)
"""Full statement: SR, SC, notifications, API answers, user interface, README."""

RUO_SHORT = "Research use only. Not for diagnosis or patient care."
"""For places with a length limit: a DICOM LO value holds 64 characters (PS3.5 6.2)."""
