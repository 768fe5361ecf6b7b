"""Networks that read a text token by token: LSTM and GRU, and two of them with attention between."""

from purelm.models.recurrent.cells import CellState
from purelm.models.recurrent.network import Carry, Recurrent, init_carry

__all__ = ["Carry", "CellState", "Recurrent", "init_carry"]
