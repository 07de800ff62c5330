"""The DICOMweb gateway: STOW-RS, QIDO-RS and WADO-RS over one index and one object store."""
