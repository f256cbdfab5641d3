"""CLIPFeatures are the image embeddings of any CLIP, under its name."""

import pytest
import torch
from tiny_clip import save_tiny_clip
from transformers import CLIPModel, CLIPProcessor, CLIPVisionModel

from callbacks import FID, MMD, CLIPFeatures
from callbacks.feature_metrics.reference_files import reference_file
from pretzel.errors import UserError
from pretzel.media.integers import to_integers


def test_cmmd_with_a_clip(tmp_path):
    path = save_tiny_clip(tmp_path / "Tiny_CLIP", 77)
    metric = MMD(CLIPFeatures(str(path)))
    assert metric.name == "mmd_tiny-clip"
    assert FID(CLIPFeatures(str(path))).name == "fid_tiny-clip"
    metric.prepare(torch.device("cpu"))
    images = torch.rand(10, 3, 16, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
    metric.update_real(images[:6])
    metric.update(images[6:], [""] * 4)
    model, processor = CLIPModel.from_pretrained(path), CLIPProcessor.from_pretrained(path)
    pixels = processor.image_processor(images=list(to_integers(images)), return_tensors="pt")
    with torch.no_grad():
        rows = model.visual_projection(model.vision_model(**pixels).pooler_output).double()
    torch.testing.assert_close(metric.extractor.features(images).double(), rows)
    rows = rows / rows.norm(dim=1, keepdim=True)
    kernel = torch.exp(-torch.cdist(rows, rows).square() / 200)
    expected = kernel[:6, :6].mean() + kernel[6:, 6:].mean() - 2 * kernel[:6, 6:].mean()
    assert metric.compute()["mmd_tiny-clip"] == pytest.approx(1000 * float(expected), rel=1e-4)
    facts = metric.extractor.facts()
    assert facts["extractor"] == "tiny-clip"
    assert '"shortest_edge": 8' in facts["resize"]
    kept = reference_file("images", metric.extractor, "features")
    assert "tiny-clip-transformers-" in kept.name


def test_models_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"CLIPFeatures: model must be .*, got ''"):
        CLIPFeatures("")
    with pytest.raises(UserError, match=r"CLIPFeatures: model .*nowhere' cannot be load"):
        FID(CLIPFeatures(str(tmp_path / "nowhere"))).prepare(torch.device("cpu"))
    path = save_tiny_clip(tmp_path / "clip", 77)
    CLIPVisionModel.from_pretrained(path).save_pretrained(path)
    with pytest.raises(UserError, match="must be a CLIP or SigLIP, got a CLIPVisionModel"):
        CLIPFeatures(str(path)).prepare()
