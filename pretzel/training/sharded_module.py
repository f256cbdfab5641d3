"""Weights that are dealt out to processes while they train (FSDP2), and whole while evaluated."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from pretzel.errors import UserError
from pretzel.flow.transformer import CausalTransformer
from pretzel.flow.transformer_layer import Layer
from pretzel.latent.generative_model import Scores
from pretzel.model import Pretzel
from pretzel.sequence.document import Document, caption_document
from pretzel.training.checkpointed_module import CheckpointedModule
from pretzel.training.text_states import TextStates
from pretzel.typing import Float, Tensor

Score = Callable[[Sequence[Document], Tensor], Scores]


class ShardedModule(CheckpointedModule):
    """A module whose weights ``ModelParallelStrategy`` deals out to processes.

    Each layer of the flow and each decoder layer of the frozen vision-language model is gathered
    when it runs and dealt out again behind it; what else trains is gathered for the whole step. The
    rest that is frozen (embeddings, language head, towers, latent space) is whole in every process.
    Layers keep their own data types. Every process gathers layers in one order, so all must run the
    same ones.

    Evaluations run different layers in different processes, so all of them hold the whole model
    from the start of one to its end.
    """

    micro_batch_size: int | None
    text_states: TextStates | None

    @property
    def is_sharded(self) -> bool:
        """Whether weights are dealt out."""
        return isinstance(self.pretzel, FSDPModule)

    def configure_model(self) -> None:
        """Deal the weights out, if that is the Trainer's strategy.

        Raises:
            UserError: If something is configured that cannot be done with such weights.
        """
        strategy = self.trainer.strategy
        if not isinstance(strategy, ModelParallelStrategy):
            return
        if self.trainer.state.fn != TrainerFn.FITTING:
            strategy.optimizers = []  # of a fit before: weights alone have no state for them
        if self.is_sharded:
            return
        self._refuse(strategy)
        model, mesh = self.pretzel, strategy.device_mesh["data_parallel"]
        frozen = [part for name, part in model.named_children() if name in model.frozen]
        layers = list(model.vlm.decoder_layers()) if isinstance(model, Pretzel) else []
        for child in model.children():
            if child not in frozen:
                layers += [module for module in child.modules() if isinstance(module, Layer)]
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        kept = {parameter for part in frozen for parameter in part.parameters()}
        fully_shard(model, mesh=mesh, ignored_params=kept)
        for name in ("score", "score_text"):
            if hasattr(model, name):
                register_fsdp_forward_method(model, name)
        # Lightning looks for frozen parts in checkpoints; other states are refused by check_state
        self.strict_loading = False

    def _refuse(self, strategy: ModelParallelStrategy) -> None:
        name = "under ModelParallelStrategy"
        sizes = tuple(strategy.device_mesh.shape)
        scalars = [n for n, parameter in self._trainable().items() if not parameter.ndim]
        transformers = [m for m in self.pretzel.modules() if isinstance(m, CausalTransformer)]
        wrong = {
            "trainer.strategy: data_parallel_size must be the number of processes and "
            f"tensor_parallel_size 1, got {sizes}": sizes[1] != 1,
            "trainer.strategy: save_distributed_checkpoint must be false, got true: checkpoints "
            "are single files": strategy._save_distributed_checkpoint,
            f"micro_batch_size must be null {name}, got {self.micro_batch_size}: choose "
            "gradient_checkpointing of the conditioner": self.micro_batch_size is not None,
            f"text_states must be null {name}: processes that lack other texts would run other "
            "layers": self.text_states is not None,
            f"denoiser must be one that does not train {name}, such as ScoreDenoiser, got "
            f"{type(self.denoiser).__name__}": self._trained_denoiser() is not None,
            f"compile of a conditioner must be false {name}, got true": any(
                transformer.compiles for transformer in transformers
            ),
            f"parameters must have an axis {name}, {scalars[:1]} has none: choose a part without "
            "it, or another strategy": bool(scalars),
        }
        for sentence, is_so in wrong.items():
            if is_so:
                raise UserError(sentence)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse an optimizer's state that another strategy has written.

        Raises:
            UserError: If its parameters are numbered otherwise.
        """
        super().on_load_checkpoint(checkpoint)
        if not self.is_sharded or self.trainer.state.fn != TrainerFn.FITTING:
            return
        # Lightning has loaded it by numbers: here of all parameters, elsewhere of those that train
        number = {parameter: i for i, parameter in enumerate(self.parameters())}
        own = [{number[p] for p in g["params"]} for g in self.trainer.optimizers[0].param_groups]
        saved = checkpoint["optimizer_states"][0]["param_groups"]
        if [set(group["params"]) for group in saved] != own:
            raise UserError(
                "ckpt_path: training does not go on by ModelParallelStrategy from a checkpoint "
                "that another strategy has written: name that one, or begin anew from the "
                "checkpoint's weights, by model.init_args.weights"
            )

    def taking_part(
        self, score: Score, documents: Sequence[Document], x: Float[Tensor, "m n d"]
    ) -> Scores:
        """Return scores; where nothing is modelled, run all layers as other processes do."""
        if not self.is_sharded or any(self.pretzel.view(one).segments for one in documents):
            return score(documents, x)
        unused = vars(score([caption_document("")], x.new_zeros(1, *x.shape[1:])))
        return Scores(**{name: values[:0] for name, values in unused.items()})

    def on_validation_start(self) -> None:
        """Gather all weights, behind callbacks that exchange them."""
        model = self.pretzel
        if not isinstance(model, FSDPModule):
            return
        # A model of which a layer ran first would not be taken for the outermost
        model._get_fsdp_state()._lazy_init()
        with torch.inference_mode(False):
            for module in self._dealt_out():
                module.set_reshard_after_forward(False, recurse=False)
                module.set_reshard_after_backward(False, recurse=False)
                module.unshard()

    def on_validation_epoch_end(self) -> None:
        """Deal the weights out again, behind all that is measured."""
        for number, module in enumerate(self._dealt_out()):
            module.reshard()
            # The first, the model itself, stays gathered for the backward pass
            module.set_reshard_after_forward(number > 0, recurse=False)
            module.set_reshard_after_backward(True, recurse=False)

    on_test_start = on_predict_start = on_validation_start
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end

    def _dealt_out(self) -> list[FSDPModule]:
        return [module for module in self.pretzel.modules() if isinstance(module, FSDPModule)]
