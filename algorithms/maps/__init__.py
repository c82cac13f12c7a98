"""Maps: half-map correlation, resolution in a mask, sharpening, solvent masks.

Source: refinement.md section 7.
"""
