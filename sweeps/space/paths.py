"""Paths of settings that a space treats apart, and how a choice of methods is written."""

FAMILY_PATH = "model.family"
METHODS_PATH = "methods"
NO_METHOD = "full"  # a choice of `methods`: full fine-tuning


def method_names(product: str) -> tuple[str, ...]:
    """Return the methods of a choice: "lora+quantize" is two, "full" is none."""
    return () if product == NO_METHOD else tuple(str(product).split("+"))
