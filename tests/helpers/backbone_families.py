"""The classes of backbones that the tests of methods run on."""

FAMILIES = {
    "vit": "timm/test_vit",
    "registers": "timm/test_vit2",
    "swin": "timm/small_swin",
    "swinv2": "timm/small_swinv2",
    "convnext": "timm/test_convnext",
    "resnet": "timm/test_resnet",
    "galileo": "rslearn/galileo_nano",
}
"""A small backbone of each supported class; `registers` is a ViT with a register token and no class
token."""
