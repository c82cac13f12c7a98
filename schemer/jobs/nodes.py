"""Labels of pipeline nodes, RELION 5.0: what kind of file a job reads or leaves.

Programs add their own last part. Source: schemes.md section 10.
"""

MOVIES = "MicrographMovieGroupMetadata.star.relion"
MICROGRAPHS = "MicrographGroupMetadata.star.relion"
COORDINATES = "MicrographCoordsGroup.star.relion"
PARTICLES = "ParticleGroupMetadata.star.relion"
IMAGES = "Image2DGroupMetadata.star.relion"
OPTIMISER = "OptimiserData.star.relion"
MAP = "DensityMap.mrc"
HALF_MAP = "DensityMap.mrc.halfmap"
MASK = "Mask3D.mrc"
LOG = "LogFile.pdf.relion"
POSTPROCESS = "ProcessData.star.relion.postprocess"
LOCAL_RESOLUTION = "Image3D.mrc.resmap.localresmap"  # RELION's own maps have this label too
POLISH_PARAMETERS = "ParamsData.txt.relion.polish"
OPTIMISATION_SET = "TomoOptimisationSet.star.relion"
TOMOGRAMS = "TomogramGroupMetadata.star.relion.tomo"
TRAJECTORIES = "TomoTrajectoryData.star.relion"
