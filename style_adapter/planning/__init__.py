"""What training costs before it is started: memory a GPU and traffic a step, by ways to spread a backbone.

Nothing is downloaded but a configuration.
"""

from .peak import PeakBytes
from .survey import Model, Work, step_bytes, survey
from .ways import GIB, WAYS, Cost, Way, cost, costs_of, first_fitting, plan

__all__ = [
    "GIB",
    "WAYS",
    "Cost",
    "Model",
    "PeakBytes",
    "Way",
    "Work",
    "cost",
    "costs_of",
    "first_fitting",
    "plan",
    "step_bytes",
    "survey",
]
