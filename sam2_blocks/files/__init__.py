"""How files are written: whole or not at all, one a picture, and by one writer at a time."""
