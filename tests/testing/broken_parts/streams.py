"""Skips, adapters, vision inputs, latent spaces and VLMs that are wrong in one place."""

from functools import partial

import torch
import torch.nn.functional as F

from broken_parts import Broken
from pretzel.interleave import GatedSkip, LatentInput, LinearAdapter, RandomSkip, ZeroSkip
from pretzel.interleave.vision_input import FlowInput
from pretzel.latent import Pixels
from pretzel.testing.tiny_model import small_vlm
from pretzel.vlm.cache import PreallocatedCache
from pretzel.vlm.tiny import TinyVLM


class PoolsTheRow(ZeroSkip):
    """One vector for the whole row: it has seen the future."""

    def contribution(self, source):
        return super().contribution(source.mean(dim=1, keepdim=True).expand_as(source))


class AddsEverywhere(ZeroSkip):
    def forward(self, target, source, where=None):
        return super().forward(target, source)


class SaysZero(RandomSkip):
    starts_at_zero = True


class ZeroTimesZero(GatedSkip):
    def __init__(self, source, target):
        super().__init__(source, target)
        torch.nn.init.zeros_(self.linear.weight)


class NormsTheSequence(LinearAdapter):
    """A layer norm over positions and channels, where it should be over channels."""

    def forward(self, features):
        return super().forward(F.layer_norm(features, features.shape[-2:]))


class StartsTooLarge(LinearAdapter):
    def start_from(self, vlm):
        super().start_from(vlm)
        self.last.weight.data *= 10


class SaysItIsCausal(LatentInput):
    is_causal = True


class LooksAtTheNext(FlowInput):
    def features(self, u, x, latent, vlm):
        return u.roll(-1, dims=1)


class ColumnsFirst(Pixels):
    """Encodes and decodes by columns, consistently; coordinates and scan orders are then wrong."""

    def encode(self, images):
        return super().encode(images.mT)

    def decode(self, latents):
        return super().decode(latents).mT


class Samples(Pixels):
    """Draws from a posterior, as a variational autoencoder is trained."""

    def encode(self, images):
        x = super().encode(images)
        return x + 1e-13 * torch.randn_like(x)


class NormalisesTheBatch(Pixels):
    def encode(self, images):
        x = super().encode(images)
        return x - x.mean(dim=0, keepdim=True) if len(x) > 4 else x


class KeysOfOneRow(PreallocatedCache):
    """Selected rows get the keys of the first of them, and values of their own."""

    def select(self, rows):
        chosen = super().select(rows)
        for new, old in zip(chosen.layers, self.layers, strict=True):
            new.keys = old.keys[rows[:1]].expand_as(new.keys).clone()
        return chosen


class SmallVLM(TinyVLM):
    """The model of the laws, of a class of its own."""

    def __init__(self):
        super().__init__()
        vars(self).update(vars(small_vlm()))


class SelectsWrongly(SmallVLM):
    def new_cache(self, batch_size, max_length):
        return KeysOfOneRow(self.network.config.num_layers, batch_size, max_length)


class ObeysTrain(SmallVLM):
    def train(self, mode=True):
        return torch.nn.Module.train(self, mode)


class ListensToNobody(SmallVLM):
    def forward(self, embeddings, index, mask=None, cache=None, coordinates=None, after_layer=None):
        def heard(layer, states):
            after_layer(layer, states)
            return states

        hears = None if after_layer is None else heard
        return super().forward(embeddings, index, mask, cache, coordinates, hears)


class CountsFromTheCache(SmallVLM):
    """Right for whole rows; behind a cache padding is counted as well."""

    def forward(self, embeddings, index, mask=None, cache=None, coordinates=None, after_layer=None):
        if cache is not None and cache.length:
            length = embeddings.shape[1]
            index = torch.arange(cache.length, cache.length + length).expand_as(index)
        return super().forward(embeddings, index, mask, cache, coordinates, after_layer)


WIDTHS, SQUARE, PIXELS = (6, 5), (32, 32), (8, 2, 0.1)
BROKEN = [
    *(
        Broken(partial(kind, *WIDTHS), partial(ZeroSkip, *WIDTHS), f"skips.{law}")
        for kind, law in [
            (PoolsTheRow, "positions_do_not_mix"),
            (AddsEverywhere, "it_adds_its_contribution"),
            (SaysZero, "it_starts_as_it_says"),
            (ZeroTimesZero, "every_parameter_is_trained"),
        ]
    ),
    *(
        Broken(partial(kind, *SQUARE), partial(LinearAdapter, *SQUARE), f"adapters.{law}")
        for kind, law in [
            (NormsTheSequence, "positions_do_not_mix"),
            (StartsTooLarge, "it_starts_at_the_scale_of_text"),
        ]
    ),
    Broken(SaysItIsCausal, LatentInput, "vision_inputs.causal_features_are_known_in_time"),
    Broken(LooksAtTheNext, FlowInput, "vision_inputs.causal_features_are_known_in_time"),
    *(
        Broken(partial(kind, *PIXELS), partial(Pixels, *PIXELS), f"latents.{law}")
        for kind, law in [
            (ColumnsFirst, "positions_are_in_raster_order"),
            (Samples, "calls_change_nothing"),
            (NormalisesTheBatch, "images_do_not_mix"),
        ]
    ),
    *(
        Broken(kind, SmallVLM, f"vlm_streams.{law}")
        for kind, law in [
            (SelectsWrongly, "caches_rewind_and_select"),
            (ObeysTrain, "it_is_frozen"),
            (ListensToNobody, "other_streams_join_behind_layers"),
            (CountsFromTheCache, "cached_states_equal_whole_ones"),
        ]
    ),
]
