"""From results to standard DICOM objects: SR TID 1500, SEG, Secondary Capture. Nothing else imports highdicom."""
