"""Train, evaluate and export ``nano``, the SAM 2 model that ships inside the package."""
