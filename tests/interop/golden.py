"""Golden vectors: calls of the published code, made on our blocks.

Each call of a file (see `golden_file`) is made on what `pretzel.interop` reads from the file's
parameters, and its results are given their documented names. Anything unknown is refused: nothing
may be skipped in silence.
"""

import torch
from golden_arguments import (
    GUIDED,
    ITERATED,
    STARFLOW_BLOCK,
    STARFLOW_MODEL,
    TARFLOW_BLOCK,
    TARFLOW_MODEL,
    filled,
)
from golden_file import GoldenFile

from pretzel.flow.block import FlowStack
from pretzel.interop import starflow, tarflow
from pretzel.interop.block_reader import BlockReader
from pretzel.interop.checkpoint import CheckpointKeys
from pretzel.interop.starflow import StarflowOptions, read_starflow
from pretzel.interop.tarflow import read_tarflow
from pretzel.latent.pixels import patchify, unpatchify
from pretzel.sampling.guidance import AttentionTemperature, GaussianMixing, LinearGuidance
from pretzel.sampling.samplers import Jacobi, Sequential
from pretzel.sampling.stack import invert_stack

KINDS = {
    ("tarflow", "Model"): TARFLOW_MODEL,
    ("tarflow", "MetaBlock"): TARFLOW_BLOCK,
    ("starflow", "Model"): STARFLOW_MODEL,
    ("starflow", "MetaBlock"): STARFLOW_BLOCK,
}


class Case(GoldenFile):
    """One file in one precision, run by our blocks."""

    def __post_init__(self):
        super().__post_init__()
        self._flows = {}
        kind = (self.about["family"], self.about["module"])
        if kind not in KINDS:
            raise ValueError(f"family and module must be one of {sorted(KINDS)}, got {kind}")
        self.family, self.module = kind
        self.what = f"{self.family} {self.module}"
        self.arguments = filled(self.about["ctor"], KINDS[kind], self.what)

    # What is read from it

    def flow(self, grid=None):
        """Return the published blocks (None: without layers), our stack, and the key map."""
        if grid not in self._flows:
            read = self.read()
            stack = read.stack(grid)
            blocks = dict(zip([block.number for block in read.blocks], stack, strict=True))
            count = self.arguments.get("num_blocks") or len(blocks)
            self._flows[grid] = [blocks.get(n) for n in range(count)], stack, read.report
        return self._flows[grid]

    def read(self):
        arguments, parameters = self.arguments, self.parameters()
        if self.family == "tarflow":
            if self.module == "MetaBlock":
                keys = CheckpointKeys(parameters, "tensors")
                block = tarflow.read_block(keys, "", 0, self.flips(), arguments["head_dim"])
                grid = (block.tensors["positions.vectors"].shape[0],)
                return tarflow.flow_of(keys, [block], grid)
            block = filled(arguments["block"], {"head_dim": 64, "expansion": 4}, "block")
            return read_tarflow(parameters, head_dim=block["head_dim"])
        is_model = self.module == "Model"
        if not arguments["rope" if is_model else "use_rope"]:
            raise ValueError(f"{self.what} without rotary positions does not run in the original")
        patch = arguments["patch_size"] if is_model else 1
        side = arguments["pt_seq_len"] or arguments["img_size"] // patch
        if not is_model:
            known = {"dim": None, "pt_seq_len": side, "latent_len": None}
            rope = filled(arguments["rope"], known, "rope")
            if rope["dim"] not in (None, arguments["head_dim"] // 2):
                raise ValueError(f"rope: dim must be head_dim // 2, got {rope['dim']}")
            if rope["latent_len"] not in (None, arguments["txt_size"]):
                raise ValueError(f"rope: latent_len must be txt_size, got {rope['latent_len']}")
            side = rope["pt_seq_len"]
        options = StarflowOptions(
            head_dim=arguments["head_dim"],
            seq_order=arguments["seq_order"] if is_model else "R2L",
            patch_size=patch,
            softplus=bool(arguments["use_softplus"]),
            soft_clip=float(arguments["soft_clip"] or 0),
            hf_style_rope=bool(arguments["hf_style_rope"]),
            pt_seq_len=side,
            text_length=arguments["txt_size"],
            channels_first=False,
        )
        if is_model:
            return read_starflow(parameters, options)
        keys = CheckpointKeys(parameters, "tensors")
        reader = BlockReader(keys=keys, prefix="block.", index=0)
        length = options.text_length
        block = starflow.read_block(reader, 0, self.flips(), options, side, length)
        return starflow.flow_of(keys, [block], side, length)

    def flips(self):
        permutation = self.arguments["permutation"]
        if permutation not in ("identity", "flip"):
            raise ValueError(f"permutation must be identity or flip, got {permutation!r}")
        return permutation == "flip"

    # Calls

    def run(self, name):
        """Return the results of a call by their documented names."""
        call = self.call(name)
        runs = {"forward": self.forward, "reverse": self.reverse, "update_prior": self.update_prior}
        if self.family == "starflow":
            runs["jacobi"] = self.reverse
            del runs["update_prior"]
        if call["method"] not in runs:
            raise ValueError(f"{self.what} has no method {call['method']!r}; known: {list(runs)}")
        inputs = {argument: self.input(key) for argument, key in call["inputs"].items()}
        return runs[call["method"]](call, inputs)

    def update_prior(self, call, inputs):
        filled(call["kwargs"], {}, "update_prior")
        var = self.var(call["id"])
        return {"var_before": var, "var_after": self.updated(var, call)}

    def forward(self, call, inputs):
        filled(call["kwargs"], {}, f"forward of {self.what}")
        given = filled(inputs, {"x": None, "y": None}, f"forward of {self.what}")
        x = given["x"].detach().requires_grad_()
        run = self.forward_tarflow if self.family == "tarflow" else self.forward_starflow
        blocks, stack, report = self.flow(self.grid(x))
        results = run(blocks, x, given["y"])
        stack.zero_grad()
        results["loss"].backward()
        results["grad_in_x"] = x.grad
        parameters = dict(stack.named_parameters())
        results["param_grad_norms"] = torch.stack(
            [gradient_norm(parameters[report.used[key]]) for key in self.about["param_names"]]
        )
        return {name: value.detach() for name, value in results.items()}

    def forward_tarflow(self, blocks, x, y):
        seen, logdets, z = {}, 0.0, self.tokens(x)
        for number, block in enumerate(blocks):
            context = None if not block.reads_context else self.labels(y, len(x))
            flowed = block(z, context)
            z = seen[f"block{number}"] = flowed.z
            logdets = logdets + flowed.logdet / z[0].numel()
        name = "logdets" if self.module == "Model" else "logdet"
        loss = z.square().mean() / 2 - logdets.mean()
        return {**seen, "z": z, name: logdets, "loss": loss}

    def forward_starflow(self, blocks, x, y):
        grid, z = self.grid(x), self.tokens(x)
        seen, losses = {"outputs0": z.unflatten(1, grid)}, []
        for number, block in enumerate(blocks):
            logdet = x.new_zeros(len(x))
            if block is not None:
                context = self.text(y, x) if block.reads_context else None
                if context is not None:
                    states = block.states(z[:, block.order], context)
                    seen["y_out"] = states[:, : context.shape[1]]
                ordered, logdet = block.elementwise(z, context)
                z = ordered[:, block.rank]
            seen[f"logdet{number}"] = logdet
            seen[f"outputs{number + 1}"] = z.unflatten(1, grid)
            losses.append(-logdet.flatten(1).mean(dim=1) if logdet.dim() > 1 else -logdet)
        loss_z, loss_logdet = z.square().mean(dim=(1, 2)) / 2, sum(losses)
        return {
            **seen,
            "logdet": seen["logdet0"],
            "z": self.image(z, grid),
            "loss": (loss_z + loss_logdet).mean(),
            "loss_z": loss_z.mean(),
            "loss_logdet": loss_logdet.mean(),
        }

    def reverse(self, call, inputs):
        known = dict(GUIDED)
        if self.family == "starflow":
            known |= ITERATED
        if self.module == "Model":
            known["return_sequence"] = False
        options = filled(call["kwargs"], known, f"{call['method']} of {self.what}")
        if call["method"] == "jacobi":
            options["jacobi"] = True
        given = filled(inputs, {"x": None, "y": None}, f"{call['method']} of {self.what}")
        run = self.reverse_tarflow if self.family == "tarflow" else self.reverse_starflow
        with torch.no_grad():
            sequence = run(call, options, given["x"], given["y"])
        if options.get("return_sequence"):
            return {f"seq{number}": x for number, x in enumerate(sequence)}
        return {"x": sequence[-1]}

    def reverse_tarflow(self, call, options, z, y):
        grid = self.grid(None)
        sequence = [self.image(z, grid)]
        if self.module == "Model":
            z = z * self.var(call["id"]).sqrt()
        blocks, _, _ = self.flow(grid)
        guidance = context = null = None
        if blocks[0].reads_context:
            context = self.labels(y, len(z), indexes=True)
            null = torch.full_like(context, -1)
        weight, what = float(options["guidance"]), options["guide_what"]
        if weight > 0 and what:
            guidance = LinearGuidance(
                weight, options["annealed_guidance"], mean="b" in what, scale="a" in what
            )
            if options["attn_temp"] != 1:
                guidance = AttentionTemperature(guidance, float(options["attn_temp"]))
        for block in reversed(blocks):
            z = invert(block, z, Sequential(), context, null, guidance)
            sequence.append(self.image(z, grid))
        return sequence

    def reverse_starflow(self, call, options, x, y):
        grid = self.grid(x)
        z, sequence = self.tokens(x), [x]
        sampler, temperature = Sequential(), float(options["attn_temp"])
        if options["jacobi"]:
            sampler = Jacobi(
                options["jacobi_block_size"],
                float(options["jacobi_th"]),
                options["jacobi_max_iter"],
                keep_last_iteration=True,
            )
            temperature = 1.0
        blocks, stack, _ = self.flow(grid)
        if options["jacobi"] and any(block.start.shifts_outputs for block in stack):
            raise ValueError("Jacobi iteration needs a start token (sos)")
        guidance, context, null = None, self.text(y, x), None
        if options["guidance"] > 0 and context is not None:
            if len(context) != 2 * len(x):
                raise ValueError(f"guidance needs two rows of y for each of {len(x)}, {len(y)=}")
            context, null = context.chunk(2)
            if options["guide_what"] or options["jacobi"]:
                guidance = GaussianMixing(float(options["guidance"]))
        for block in reversed(blocks):
            if block is not None:
                z = invert(block, z, sampler, context, null, guidance, temperature)
            sequence.append(self.image(z, grid))
        return sequence

    # Tokens and images, classes and texts

    def grid(self, x):
        """Return the grid of an image; of a sequence, where there is none."""
        arguments = self.arguments
        if self.family == "tarflow":
            if self.module == "MetaBlock":
                return (arguments["num_patches"],)
            return (arguments["img_size"] // arguments["patch_size"],) * 2
        if self.module == "MetaBlock":
            return tuple(x.shape[1:3])
        return tuple(size // arguments["patch_size"] for size in x.shape[-2:])

    def tokens(self, x):
        if self.module == "MetaBlock":
            return x.flatten(1, -2)
        p = self.arguments["patch_size"]
        if self.family == "tarflow":
            return patchify(x, p)
        tokens = patchify(x, p).unflatten(2, (-1, p, p))
        return tokens.permute(0, 1, 3, 4, 2).flatten(2)

    def image(self, z, grid):
        if self.module == "MetaBlock":
            return z.unflatten(1, grid)
        p = self.arguments["patch_size"]
        if self.family == "starflow":
            z = z.unflatten(2, (p, p, -1)).permute(0, 1, 4, 2, 3).flatten(2)
        return unpatchify(z, grid, p)

    def labels(self, y, rows, *, indexes=False):
        """Return our labels: -1 for the mean class, as in forward; reverse counts from the end."""
        if y is None:
            return torch.full((rows,), -1)
        return y % self.arguments["num_classes"] if indexes else y.clamp(min=-1)

    def text(self, y, x):
        """Return text states; none at all are a text of no tokens."""
        if not self.arguments["txt_dim"]:
            return None
        return x.new_zeros(len(x), 0, self.arguments["txt_dim"]) if y is None else y


def invert(block, z, sampler, context, null, guidance, temperature=1.0):
    return invert_stack(
        FlowStack([block]),
        z,
        sampler,
        context=context,
        null_context=null,
        guidance=guidance,
        temperature=temperature,
    ).x


def gradient_norm(parameter):
    return parameter.new_zeros(()) if parameter.grad is None else parameter.grad.norm()
