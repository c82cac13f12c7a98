"""Orientations in three dimensions: Euler angles, HEALPix directions, point groups.

Source: refinement.md sections 1.3, 2.4 and 3.1.
"""
