"""The documented arguments of the published constructors and calls, with their defaults."""

# Of constructors; None where the shapes tell, or there is no default.
TARFLOW_MODEL = {
    "in_channels": None,
    "img_size": None,
    "patch_size": None,
    "channels": None,
    "num_blocks": None,
    "layers_per_block": None,
    "nvp": None,
    "num_classes": 0,
    "block": {},
}
TARFLOW_BLOCK = {
    "in_channels": None,
    "channels": None,
    "num_patches": None,
    "num_layers": None,
    "head_dim": 64,
    "expansion": None,
    "nvp": None,
    "num_classes": 0,
    "permutation": None,
}
_STARFLOW = {
    "in_channels": None,
    "channels": None,
    "img_size": None,
    "pt_seq_len": None,
    "head_dim": 64,
    "num_heads": None,
    "num_kv_heads": None,
    "txt_size": 0,
    "txt_dim": 0,
    "use_softplus": False,
    "use_swiglu": None,
    "use_qk_norm": None,
    "use_post_norm": None,
    "use_final_norm": None,
    "use_bias": None,
    "hf_style_rope": False,
    "norm_type": None,
    "soft_clip": 0,
    "use_checkpoint": None,  # changes memory, not results
    "use_checkpoint_mlp": None,
}
STARFLOW_MODEL = _STARFLOW | {
    "patch_size": None,
    "num_blocks": None,
    "layers_per_block": None,
    "rope": False,
    "sos": None,
    "cond_top_only": None,
    "seq_order": "R2L",
    "top_block_channels": None,
}
STARFLOW_BLOCK = _STARFLOW | {
    "num_layers": None,
    "expansion": None,
    "use_rope": False,
    "use_sos": None,
    "permutation": None,
    "rope": None,
}
GUIDED = {"guidance": 0.0, "guide_what": "ab", "attn_temp": 1.0, "annealed_guidance": False}
ITERATED = {
    "jacobi": False,
    "jacobi_block_size": 32,
    "jacobi_max_iter": 32,
    "jacobi_th": 0.001,
}


def filled(given, known, what):
    """Return arguments with their defaults; refuse those that are not known."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{what} has no argument {', '.join(unknown)}; known: {sorted(known)}")
    return {**known, **given}
