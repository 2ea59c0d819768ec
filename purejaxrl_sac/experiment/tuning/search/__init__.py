"""Hyperparameter searches: successive halving, population-based training, Optuna.

All points are lanes of one program. Between two chunks the host compares scores, and lanes are
gathered on the devices: survivors become adjacent, or the worst become copies of the best.
"""

from purejaxrl_sac.experiment.tuning.search.halving import HalvingResult, Rung, successive_halving
from purejaxrl_sac.experiment.tuning.search.optuna_study import optuna_search
from purejaxrl_sac.experiment.tuning.search.population import (
    Generation,
    PopulationResult,
    population_based_training,
)

__all__ = [
    "Generation",
    "HalvingResult",
    "PopulationResult",
    "Rung",
    "optuna_search",
    "population_based_training",
    "successive_halving",
]
