"""Reading from DICOMweb servers."""
