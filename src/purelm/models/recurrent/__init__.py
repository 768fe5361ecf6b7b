"""Networks that read a text token by token: LSTM and GRU, and two of them with attention between."""

from purelm.models.recurrent.cells import CellState
from purelm.models.recurrent.decoder import DecoderCarry, Source
from purelm.models.recurrent.encoder_decoder import RecurrentEncoderDecoder
from purelm.models.recurrent.network import Carry, Recurrent, init_carry

__all__ = ["Carry", "CellState", "DecoderCarry", "Recurrent", "RecurrentEncoderDecoder", "Source", "init_carry"]
