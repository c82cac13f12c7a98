"""Which of RELION's STAR labels hold text and which truth values; all others hold numbers.

RELION types a value by its label, so `read_star` has to know. Labels of 3.1 to 5.0; `rln` is left
off. Source: schemes.md section 3, "STAR readers".
"""

from schemer.scheme import Kind

_TEXTS = frozenset(
    f"rln{word}"
    for word in """
    AreaName BodyMaskName BodyReferenceName BodyStarFile Comment CtfImage CtfPowerSpectrum
    ExperimentalDataStarFile ExtReconsDataImag ExtReconsDataReal ExtReconsResult
    ExtReconsResultStarfile ExtReconsWeight FourierMask GradMoment1 GradMoment2 GroupName
    ImageName ImageOriginalName JobOptionDefaultValue JobOptionDirectoryDefault
    JobOptionFilePattern JobOptionGUILabel JobOptionHelpText JobOptionMenuOptions JobOptionValue
    JobOptionVariable JobTypeLabel JobTypeName LocalSymmetryFile MaskName MicrographCoordinates
    MicrographDefectFile MicrographGainName MicrographMetadata MicrographMovieName
    MicrographName MicrographNameNoDW ModelStarFile ModelStarFile2 MtfFileName OpticsGroupName
    OpticsStarFile OrientSamplingStarFile OriginalParticleName OutputRootName ParticleName
    PipeLineEdgeFromNode PipeLineEdgeProcess PipeLineEdgeToNode PipeLineNodeName
    PipeLineNodeTypeLabel PipeLineProcessAlias PipeLineProcessName PipeLineProcessStatusLabel
    PipeLineProcessTypeLabel PostprocessedMap PostprocessedMapMasked ReconstructImageName
    ReferenceImage SGDGradientImage SchemeBooleanVariableName SchemeCurrentNodeName
    SchemeEdgeBooleanVariable SchemeEdgeInputNodeName SchemeEdgeOutputNodeName
    SchemeEdgeOutputNodeNameIfTrue SchemeEmailAddress SchemeFloatVariableName SchemeJobMode
    SchemeJobName SchemeJobNameOriginal SchemeName SchemeOperatorInput1 SchemeOperatorInput2
    SchemeOperatorName SchemeOperatorOutput SchemeOperatorType SchemeOriginalStartNodeName
    SchemeStringVariableName SchemeStringVariableResetValue SchemeStringVariableValue
    SgdStepsizeScheme SolventMask2Name SolventMaskName StarFileMovieParticles SubImageStack
    SubImageStarFile SymmetryGroup Tau2FudgeScheme TauSpectrumName TomoDeformationType
    TomoFiducialsStarFile TomoImportCtfFindFile TomoImportCtfPlotterFile TomoImportCulledFile
    TomoImportImodDir TomoImportOrderList TomoImportParticleFile TomoManifoldType
    TomoManifoldsFile TomoName TomoParticleName TomoParticlesFile TomoReferenceFscFile
    TomoReferenceMap1File TomoReferenceMap2File TomoReferenceMaskFile TomoTiltMovieFile
    TomoTiltSeriesName TomoTiltSeriesStarFile TomoTomogramsFile TomoTrajectoriesFile
    UnfilteredMapHalf1 UnfilteredMapHalf2
    """.split()
)

_TRUTHS = frozenset(
    f"rln{word}"
    for word in """
    AnglePsiFlip BlushNoSpectralTrailing CtfDataAreCtfPremultiplied CtfDataArePhaseFlipped
    DoAutoRefine DoAutoSampling DoBlush DoCenterClasses DoCorrectCtf DoCorrectMagnification
    DoCorrectNorm DoCorrectScale DoExternalReconstruct DoFastSubsetOptimisation DoGradientRefine
    DoHelicalRefine DoIgnoreCtfUntilFirstPeak DoMapEstimation DoOnlyFlipCtfPhases
    DoRealignMovies DoSkipAlign DoSkipRotate DoSolventFlattening DoSolventFscCorrection
    DoSplitRandomHalves DoStochasticEM DoStochasticGradientDescent DoZeroMask Enabled
    FixSigmaNoiseEstimates FixSigmaOffsetEstimates FixTauEstimates GradHasConverged HasConverged
    HasHighFscAtResolLimit HelicalKeepTiltPriorFixed HelicalSymmetryLocalRefinement
    IgnoreHelicalSymmetry Is3DSampling Is3DTranslationalSampling IsFlip IsHelix JobIsContinue
    JobIsTomo RefsAreCtfCorrected SchemeBooleanVariableResetValue SchemeBooleanVariableValue
    SchemeEdgeIsFork SchemeJobHasStarted SgdSkipAnneal UseTooCoarseSampling
    """.split()
)


def kind_of(label: str) -> Kind:
    """Return the kind of variable that takes a value of this label (without its underscore)."""
    if label in _TEXTS:
        return "string"
    return "bool" if label in _TRUTHS else "float"
