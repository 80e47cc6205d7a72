"""Big files and data sets rewritten row by row: streamed, in shards, taken up where a run was killed."""

from .beginning import Transferred
from .transferring import transfer_files

__all__ = ["Transferred", "transfer_files"]
