"""The service: pictures come in, the dangerous ones rise to the top, a dermatologist decides, and the record stands."""
