"""An LSTM layer whose weight matrices are stored in fewer bytes; its biases stay in float32."""

import torch
from torch import Tensor, nn

from qa_core.models.stored.base import StoredMatrix


class StoredLstm(nn.Module):
    """Computes what `nn.LSTM` does with the decoded weights, which are alive together while it runs.

    On CUDA, cuDNN copies them into one piece at each call and says so in a warning.

    Args:
        lstm: the layer to stand in for, with any number of layers and directions; its biases are taken over.
        matrices: for each of its weight matrices, by its name (`weight_ih_l0`), how it is stored.
    """

    def __init__(self, lstm: nn.LSTM, matrices: dict[str, StoredMatrix]) -> None:
        super().__init__()
        assert set(matrices) == set(matrix_names(lstm))
        assert lstm.proj_size == 0
        self.input_size, self.hidden_size = lstm.input_size, lstm.hidden_size
        self.num_layers, self.bidirectional = lstm.num_layers, lstm.bidirectional
        self.batch_first, self.bias, self.dropout = lstm.batch_first, lstm.bias, lstm.dropout
        self.matrices = nn.ModuleDict(matrices)
        self._order = [name for name, _ in lstm.named_parameters()]  # as torch.lstm takes them
        for name, parameter in lstm.named_parameters():
            if name not in matrices:
                self.register_parameter(name, parameter)

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return outputs and final state as `nn.LSTM` does, of a batch [L, B, input] or [B, L, input]."""
        assert inputs.dim() == 3
        if state is None:
            batch = inputs.shape[0 if self.batch_first else 1]
            layers = self.num_layers * (2 if self.bidirectional else 1)
            zeros = inputs.new_zeros(layers, batch, self.hidden_size)
            state = (zeros, zeros)
        outputs, hidden, cell = torch.lstm(
            inputs,
            state,
            [self._weight(name) for name in self._order],
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
        )
        return outputs, (hidden, cell)

    def _weight(self, name: str) -> Tensor:
        if name not in self.matrices:
            return self.get_parameter(name)
        matrix = self.matrices[name]
        assert isinstance(matrix, StoredMatrix)
        return matrix.dense()


def matrix_names(lstm: nn.LSTM) -> list[str]:
    """Return the names of a layer's weight matrices: all its parameters with two dimensions."""
    return [name for name, parameter in lstm.named_parameters() if parameter.dim() == 2]
