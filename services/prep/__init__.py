"""Movies become micrographs with a fitted CTF: the prep Scheme."""
