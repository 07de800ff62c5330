"""DICOM vocabulary: header walk, JSON model, facts, transfer syntaxes, volume assembly."""
