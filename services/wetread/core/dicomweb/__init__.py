"""DICOMweb grammar without any HTTP framework: multipart, media types, query parameters."""
