"""Lightning callbacks: metrics during training, samples, weight averaging."""

from callbacks.analysis import SkipAnalysis
from callbacks.clip import CLIPScore
from callbacks.conversation_accuracy import ConversationAccuracy
from callbacks.distances import FID, KID
from callbacks.drift import TextDrift
from callbacks.ema import EMAWeightAveraging
from callbacks.features import FeatureExtractor, Inception, JudgeFeatures, ModuleFeatures
from callbacks.generation import Generation
from callbacks.generation_metric import GenerationMetric, ReferenceMetric
from callbacks.guards import NonFiniteGuard
from callbacks.judge_training import JudgeTraining
from callbacks.likelihood import Likelihood
from callbacks.own_drawings import OwnDrawings
from callbacks.predictions import PredictionWriter
from callbacks.samples import SampleGrid
from callbacks.shapes import ShapeAccuracy
from callbacks.vqa import VQAAccuracy

__all__ = [
    "FID",
    "KID",
    "CLIPScore",
    "ConversationAccuracy",
    "EMAWeightAveraging",
    "FeatureExtractor",
    "Generation",
    "GenerationMetric",
    "Inception",
    "JudgeFeatures",
    "JudgeTraining",
    "Likelihood",
    "ModuleFeatures",
    "NonFiniteGuard",
    "OwnDrawings",
    "PredictionWriter",
    "ReferenceMetric",
    "SampleGrid",
    "ShapeAccuracy",
    "SkipAnalysis",
    "TextDrift",
    "VQAAccuracy",
]
