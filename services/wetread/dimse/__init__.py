"""The DICOM network edge: C-ECHO, C-STORE, C-FIND, C-MOVE and C-GET in front of the same ingest and index (PS3.7)."""
