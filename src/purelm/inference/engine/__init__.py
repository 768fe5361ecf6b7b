"""Many requests at once through one model, each answered as if it were alone."""

from purelm.inference.engine.engine import Engine, Ticket
from purelm.inference.engine.request import Busy, Event, Finished, Reason, Request, Token, Tokens
from purelm.inference.engine.statistics import Statistics
from purelm.inference.engine.thread import EngineThread

__all__ = ["Busy", "Engine", "EngineThread", "Event", "Finished", "Reason", "Request", "Statistics", "Ticket", "Token",
           "Tokens"]
