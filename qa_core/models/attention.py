"""Attention of one text to another, for the BiLSTM readers, made of Linear layers alone.

Dimensions: B batch, C queries, Q keys, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def dot_attention(queries: Tensor, keys: Tensor, mask: Tensor, *, scale: float | None = None) -> Tensor:
    """Return softmax(queries keysᵀ scale) keys, [B, C, D]: Luong et al. 2015, arXiv 1508.04025, `dot`.

    Args:
        queries: [B, C, D].
        keys: [B, Q, D]; they are the values too.
        mask: [B, Q] bool, True where a key counts; at least one in each row.
        scale: None for D ** -0.5.
    """
    keys = keys.to(queries.dtype)
    return F.scaled_dot_product_attention(queries, keys, keys, attn_mask=mask[:, None], scale=scale)


class MultiHeadAttention(nn.Module):
    """Multi-head attention: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2, with biases.

    The heads' width is free, as in Keras: `heads * key_size` need not be the width of the texts.
    """

    def __init__(self, width: int, *, heads: int, key_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * key_size)
        self.key = nn.Linear(width, heads * key_size)
        self.value = nn.Linear(width, heads * key_size)
        self.output = nn.Linear(heads * key_size, width)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Return [B, C, D] of queries [B, C, D], keys [B, Q, D] and a mask [B, Q], True where a key counts."""
        parts = [self.query(queries), self.key(keys), self.value(keys)]
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        # Kernels differ in how they lay the heads out; a copy in any case keeps the predicted memory the measured one.
        return self.output(torch.cat(heads.unbind(dim=1), dim=-1))
