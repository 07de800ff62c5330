"""From results to standard DICOM objects (SR TID 1500, SEG, Secondary Capture). The only place that imports highdicom."""
