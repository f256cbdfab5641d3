"""Lightning callbacks: metrics during training, samples, weight averaging."""

from callbacks.caption_quality import CaptionQuality
from callbacks.caption_retrieval import CaptionRetrieval
from callbacks.clip_features import CLIPFeatures
from callbacks.clip_score import CLIPScore
from callbacks.dpg.judges import TransformersJudge, YesNoJudge
from callbacks.dpg.score import DPGBench
from callbacks.dual_encoder.score import EmbeddedMatch
from callbacks.dual_encoder.training import DualEncoderTraining
from callbacks.easy_vqa.conversation_accuracy import ConversationAccuracy
from callbacks.easy_vqa.judge_features import JudgeFeatures
from callbacks.easy_vqa.judge_training import JudgeTraining
from callbacks.easy_vqa.own_images import OwnImages
from callbacks.easy_vqa.shape_accuracy import ShapeAccuracy
from callbacks.efficientnet_features import EfficientNetFeatures
from callbacks.ema import EMAWeightAveraging
from callbacks.feature_extractors import (
    FeatureExtractor,
    ImageClassifier,
    Inception,
    ModuleFeatures,
    PooledPixels,
)
from callbacks.feature_metrics.fid import FID
from callbacks.feature_metrics.inception_score import InceptionScore
from callbacks.feature_metrics.kid import KID
from callbacks.feature_metrics.mmd import MMD
from callbacks.feature_metrics.precision_recall import DensityCoverage, PrecisionRecall
from callbacks.generation import Generation
from callbacks.generation_metric import GenerationMetric, ReferenceMetric, TruthMetric
from callbacks.geneval.colours import CLIPColours, ColourClassifier, MeanColours
from callbacks.geneval.detectors import ObjectDetector, TransformersDetector
from callbacks.geneval.score import GenEval
from callbacks.likelihood import Likelihood
from callbacks.linear_probe import LinearProbe
from callbacks.non_finite_guard import NonFiniteGuard
from callbacks.picture_folder import PictureFolder, RealPictures
from callbacks.prediction_writer import PredictionWriter
from callbacks.reconstructions import Reconstructions
from callbacks.refinement import Refinement
from callbacks.sample_grid import SampleGrid
from callbacks.scenes.edit_accuracy import EditAccuracy
from callbacks.scenes.score import SceneAccuracy
from callbacks.siglip_score import SigLIPScore
from callbacks.skip_analysis import SkipAnalysis
from callbacks.text_drift import TextDrift
from callbacks.vqa.answering import AmongChoices, Answering, Greedy, OwnChoices
from callbacks.vqa.multiple_choice import MMBenchScoring, SEEDBenchScoring
from callbacks.vqa.scoring import Scoring, SoftAccuracy
from callbacks.vqa.yes_no import MMEScoring, POPEScoring
from callbacks.vqa_accuracy import VQAAccuracy

__all__ = [
    "FID",
    "KID",
    "MMD",
    "AmongChoices",
    "Answering",
    "CLIPColours",
    "CLIPFeatures",
    "CLIPScore",
    "CaptionQuality",
    "CaptionRetrieval",
    "ColourClassifier",
    "ConversationAccuracy",
    "DPGBench",
    "DensityCoverage",
    "DualEncoderTraining",
    "EMAWeightAveraging",
    "EditAccuracy",
    "EfficientNetFeatures",
    "EmbeddedMatch",
    "FeatureExtractor",
    "GenEval",
    "Generation",
    "GenerationMetric",
    "Greedy",
    "ImageClassifier",
    "Inception",
    "InceptionScore",
    "JudgeFeatures",
    "JudgeTraining",
    "Likelihood",
    "LinearProbe",
    "MMBenchScoring",
    "MMEScoring",
    "MeanColours",
    "ModuleFeatures",
    "NonFiniteGuard",
    "ObjectDetector",
    "OwnChoices",
    "OwnImages",
    "POPEScoring",
    "PictureFolder",
    "PooledPixels",
    "PrecisionRecall",
    "PredictionWriter",
    "RealPictures",
    "Reconstructions",
    "ReferenceMetric",
    "Refinement",
    "SEEDBenchScoring",
    "SampleGrid",
    "SceneAccuracy",
    "Scoring",
    "ShapeAccuracy",
    "SigLIPScore",
    "SkipAnalysis",
    "SoftAccuracy",
    "TextDrift",
    "TransformersDetector",
    "TransformersJudge",
    "TruthMetric",
    "VQAAccuracy",
    "YesNoJudge",
]
