"""Every callback and metric can be chosen in YAML, and its constructor says what it takes."""

import inspect

import jsonargparse
import pytest
import yaml
from lightning.pytorch import Callback

import callbacks
from callbacks import (
    Answering,
    ColourClassifier,
    FeatureExtractor,
    Generation,
    GenerationMetric,
    ImageClassifier,
    ObjectDetector,
    ReferenceMetric,
    Scoring,
    TruthMetric,
    YesNoJudge,
)
from pretzel.ablation.planning.metric_names import MetricNames

TEXT = """
callbacks:
  - class_path: callbacks.EMAWeightAveraging
    init_args: {decay: 0.998}
  - class_path: callbacks.NonFiniteGuard
  - class_path: callbacks.Likelihood
    init_args: {dequantised: true}
  - class_path: callbacks.SampleGrid
    init_args: {num_images: 24, columns: 8}
  - class_path: callbacks.PredictionWriter
    init_args: {folder: pictures}
  - class_path: callbacks.VQAAccuracy
    init_args:
      num_validation_questions: 500
      answering: {class_path: callbacks.AmongChoices, init_args: {choices: ["yes", "no"]}}
  - class_path: callbacks.VQAAccuracy
    init_args: {answering: {class_path: callbacks.AmongChoices, init_args: {choices: 1000}}}
  - class_path: callbacks.SkipAnalysis
    init_args: {num_samples: 50}
  - class_path: callbacks.TextDrift
    init_args: {num_samples: 50}
  - class_path: callbacks.OwnImages
    init_args: {num_images: 100}
  - class_path: callbacks.ConversationAccuracy
    init_args: {num_conversations: 100, num_images: 2}
  - class_path: callbacks.EditAccuracy
    init_args: {look: {class_path: datamodules.ColouredShapes}, num_images: 100}
  - class_path: callbacks.Refinement
    init_args:
      metric:
        class_path: callbacks.SceneAccuracy
        init_args: &world {look: {class_path: datamodules.ColouredShapes}}
      questions: {class_path: datamodules.SceneCaptionQuestioner, init_args: *world}
      rounds: 2
  - class_path: callbacks.LinearProbe
    init_args: {groups: {shape: [circle, triangle]}, encodings: [latents]}
  - class_path: callbacks.CaptionQuality
    init_args: {num_images: 1000, request: describe}
  - class_path: callbacks.CaptionRetrieval
    init_args: {encodings: [adapter]}
  - class_path: callbacks.Reconstructions
    init_args: {num_images: 100}
  - class_path: callbacks.Generation
    init_args:
      num_images: 256
      metrics:
        - class_path: callbacks.ShapeAccuracy
        - class_path: callbacks.FID
        - class_path: callbacks.FID
          init_args: {extractor: {class_path: callbacks.JudgeFeatures}}
        - class_path: callbacks.FID
          init_args: {extractor: {class_path: callbacks.Inception, init_args: {weights: w.pth}}}
        - class_path: callbacks.KID
          init_args:
            subset_size: 50
            extractor:
              class_path: callbacks.ModuleFeatures
              init_args: {name: flat, module: {class_path: torch.nn.Flatten}}
        - class_path: callbacks.MMD
          init_args: {unbiased: true}
        - class_path: callbacks.MMD
          init_args:
            extractor: {class_path: callbacks.CLIPFeatures, init_args: {model: openai/clip-336}}
        - class_path: callbacks.PrecisionRecall
        - class_path: callbacks.DensityCoverage
          init_args: {extractor: {class_path: callbacks.PooledPixels}}
        - class_path: callbacks.SceneAccuracy
          init_args: {look: {class_path: datamodules.ColouredShapes}}
        - class_path: callbacks.InceptionScore
          init_args: {classifier: {class_path: callbacks.Inception}}
        - class_path: callbacks.CLIPScore
          init_args: {model: openai/clip-vit-base-patch16}
        - class_path: callbacks.SigLIPScore
          init_args: {model: google/siglip2-base}
        - class_path: callbacks.EmbeddedMatch
        - class_path: callbacks.GenEval
          init_args:
            metadata: evaluation_metadata.jsonl
            detector:
              class_path: callbacks.TransformersDetector
              init_args: {model: facebook/detr-resnet-50, labels: {couch: sofa}}
            colours: {class_path: callbacks.CLIPColours, init_args: {model: openai/clip-vit-large}}
        - class_path: callbacks.GenEval
          init_args:
            metadata: evaluation_metadata.jsonl
            detector:
              class_path: callbacks.TransformersDetector
              init_args: {model: hustvl/yolos-tiny}
            colours: {class_path: callbacks.MeanColours}
        - class_path: callbacks.DPGBench
          init_args:
            questions: dpg_bench.csv
            judge:
              class_path: callbacks.TransformersJudge
              init_args: {model: Qwen/Qwen2.5-VL-7B-Instruct}
"""


def parser() -> jsonargparse.ArgumentParser:
    actual = jsonargparse.ArgumentParser(exit_on_error=False)
    actual.add_argument("--callbacks", type=list[Callback])
    return actual


def test_all_of_them_are_built_from_yaml_without_loading_anything() -> None:
    config = parser().parse_object(yaml.safe_load(TEXT))
    built = parser().instantiate(config).callbacks
    names = [type(callback).__name__ for callback in built]
    public = [
        getattr(callbacks, name)
        for name in callbacks.__all__
        if issubclass(getattr(callbacks, name), Callback)
    ]
    assert set(names) == {kind.__name__ for kind in public}
    for callback in built:
        said = MetricNames.of(type(callback), lambda callback=callback: callback)
        assert not said.silent
    generation = built[-1]
    assert isinstance(generation, Generation)
    kinds = {type(metric) for metric in generation.metrics}
    assert kinds == {
        getattr(callbacks, name)
        for name in callbacks.__all__
        if issubclass(getattr(callbacks, name), GenerationMetric)
    } - {GenerationMetric, ReferenceMetric, TruthMetric}
    names = [metric.name for metric in generation.metrics if hasattr(metric, "name")]
    assert names == [
        "fid_efflite0",
        "fid_judge",
        "fid",
        "kid_flat",
        "mmd_efflite0",
        "mmd_clip-336",
        "precision_efflite0",
        "density_pixels8",
        "inception_score",
        "clip_score_clip-vit-base-patch16",
        "siglip_score_siglip2-base",
        "match_embedded",
        "geneval_detr-resnet-50",
        "geneval_yolos-tiny",
        "dpg_qwen2-5-vl-7b-instruct",
    ]


def test_a_wrong_key_is_refused() -> None:
    wrong = yaml.safe_load(TEXT)
    wrong["callbacks"][0]["init_args"] = {"decai": 0.9}
    with pytest.raises(jsonargparse.ArgumentError, match="decai"):
        parser().parse_object(wrong)


@pytest.mark.parametrize("name", callbacks.__all__)
def test_constructors_spell_out_their_configuration(name: str) -> None:
    kind = getattr(callbacks, name)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    if kind in (
        Answering, ColourClassifier, FeatureExtractor, GenerationMetric,
        ImageClassifier, ObjectDetector, ReferenceMetric, Scoring, TruthMetric, YesNoJudge,
    ):  # fmt: skip
        assert inspect.isabstract(kind)
        return
    if kind.__init__ is object.__init__:
        return
    for parameter in parameters:
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert parameter.annotation is not inspect.Parameter.empty
        default = parameter.default
        assert default is None or isinstance(default, (int, float, str, bool, type))
