"""Recipe keys with a new name: old keys are refused with the new one."""

from __future__ import annotations

RENAMED_KEYS: dict[str, str] = {
    "method.every": "method.block_stride",
    "method.down": "method.projection_init",
    "method.inside": "method.use_block_internals",
    "method.fuse": "method.output",
    "method.prompts": "method.num_prompts",
    "method.width": "method.bottleneck_dim",
    "method.heads": "method.num_heads",
    "method.stem": "method.stem_width",
    "decoder.finest": "decoder.min_stride",
    "decoder.levels": "decoder.num_levels",
    "task.several": "task.multilabel",
    "task.per": "task.level",
    "task.radius_m": "task.match_radius_m",
    "data.spread": "data.sigma",
    "data.visible": "data.min_visibility",
    "data.focus": "data.rare_class_fraction",
    "data.missing": "data.missing_labels",
    "data.quality.hide": "data.quality.mask_image",
    "train.accumulate": "train.accumulate_steps",
    "train.clip": "train.grad_clip_norm",
    "train.recompute": "train.activation_checkpointing",
}
"""Full path of an old key to the new one."""

RENAMED_KINDS: dict[tuple[str, str], str] = {("decoder.kind", "pooled"): "global_pool"}
"""Key and old value to the new value."""
