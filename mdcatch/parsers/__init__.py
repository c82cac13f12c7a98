"""Foreign metadata: bytes in, records with units and bounds out."""
