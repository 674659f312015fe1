"""The properties, by whom they protect against. Each module has PROPERTIES, a tuple."""
