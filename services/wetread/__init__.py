"""wetread: a study goes in over DICOMweb, an urgent preliminary read comes out as standard DICOM.

Research use only. Not a medical device. Not for diagnosis or patient care.
"""

__version__ = "0.1.0"
