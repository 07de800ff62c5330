"""Whole-slide images: read, tiled, analysed in restartable pieces, written back as DICOM."""
