"""What training computes with in the place of torch's own, where that is slow on a CPU."""

from torch import nn

from qa_core.models.dropout import use_bit_dropout
from qa_core.models.fused_attention import use_fused_attention


def use_training_kernels(network: nn.Module) -> nn.Module:
    """Put them into a network, in place, and return it; a network that has them stays as it is."""
    use_bit_dropout(network)
    use_fused_attention(network)
    return network
