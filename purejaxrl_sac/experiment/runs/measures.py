"""Measures of a run: functions of one seed's state, evaluated after each chunk.

    def parameter_norm(state: TrainState) -> jax.Array:
        return optax.tree.norm(state.agent.params)

    prl.experiment.run(config, out="runs/demo", measure={"norm": parameter_norm})

Their values are columns of `metrics.jsonl` like all other metrics, and are logged and plotted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from purejaxrl_sac import references
from purejaxrl_sac.config import ConfigError, shown
from purejaxrl_sac.experiment.devices.mesh import shardings, vmap_lanes
from purejaxrl_sac.experiment.runs import engine
from purejaxrl_sac.experiment.runs.plans import EVALUATED_POLICIES, Plan, Progress
from purejaxrl_sac.part_errors import described
from purejaxrl_sac.train import seed_axes
from purejaxrl_sac.types import Scalar, TrainState

Measure = Callable[[TrainState], Scalar]


class Measures:
    """The measures of a run, compiled for its lanes.

    Args:
        measures: name -> function of the state of one seed that returns a number.

    Raises:
        ConfigError: they are no dictionary, a name is no identifier, or a function fails or returns
            no number.
    """

    def __init__(self, measures: Mapping[str, Measure], plan: Plan, mesh: Mesh) -> None:
        _check_mapping(measures)
        self.measures, self.lanes, self.mesh = dict(measures), plan.lanes, mesh
        if not self.measures:
            return
        like = engine.shapes(plan, mesh)
        one = engine.shapes(plan._replace(seeds=1, variants={}))
        self.axes = seed_axes(like)
        for name, measure in self.measures.items():
            self._check(name, measure, one)
        self.compiled = jax.jit(
            vmap_lanes(self._values, mesh, (self.axes,)), out_shardings=shardings(None, mesh)
        )

    def references(self) -> dict[str, str | None]:
        """The reference of each measure; None for one that has none."""
        return measure_references(self.measures)

    def _values(self, state: TrainState) -> dict[str, jax.Array]:
        return {name: jnp.asarray(measure(state)) for name, measure in self.measures.items()}

    def _check(self, name: str, measure: Measure, lanes: TrainState) -> None:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ConfigError(f"a measure is called {shown(name)}, but must be an identifier")
        if name in (*Progress._fields, *EVALUATED_POLICIES, "after"):
            raise ConfigError(f"{name} is a metric already: give the measure another name")
        try:
            found = jax.eval_shape(jax.vmap(measure, (self.axes,)), lanes)
        except Exception as error:
            raise ConfigError(f"the measure {name} fails: {described(error)}") from error
        if not _is_number(found):
            raise ConfigError(f"the measure {name} must return one number, as a scalar array")

    def add(self, progress: Progress, state: TrainState) -> Progress:
        """The progress with the measures of the state as further metrics, [lanes].

        Raises:
            ConfigError: a measure has the name of another metric.
        """
        if not self.measures:
            return progress
        if taken := self.measures.keys() & {*progress._fields, *progress.metrics, "after"}:
            raise ConfigError(f"{taken.pop()} is a metric already: give the measure another name")
        values = self.compiled(state)
        measured = {name: np.asarray(x)[: self.lanes] for name, x in values.items()}
        return progress._replace(metrics={**progress.metrics, **measured})


def measure_references(measures: Mapping[str, Measure]) -> dict[str, str | None]:
    """The reference of each measure; None for one that has none."""
    return {name: references.known(measure) for name, measure in measures.items()}


def _check_mapping(measures: object) -> None:
    if not isinstance(measures, Mapping):
        raise ConfigError(f"measure is {shown(measures)}, but must be a dict of functions")


def _is_number(found: object) -> bool:
    """Whether this is the shape of a real number of one lane."""
    if not isinstance(found, jax.ShapeDtypeStruct) or found.shape != (1,):
        return False
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(found.dtype, kind) for kind in kinds)


def measured_again(
    written: Mapping[str, str | None], measure: Mapping[str, Measure] | None, trust: bool
) -> Mapping[str, Measure]:
    """The measures of a run that is resumed.

    Args:
        written: name -> reference, as the run has them.
        measure: name -> function, if they are given.
        trust: whether to import those that are not given.

    Raises:
        ConfigError: some are missing, are not trusted, or are not those of the run.
    """
    if measure is not None:
        _check_mapping(measure)
    if measure is not None and measure.keys() != written.keys():
        raise ConfigError(
            f"measure has {', '.join(measure) or 'nothing'}, but the run has"
            f" {', '.join(written) or 'nothing'}: give the same"
        )
    if measure is not None or not written:
        return measure or {}
    names = ", ".join(written)
    if None in written.values():
        raise ConfigError(f"the run has measures that no reference names: pass measure= {names}")
    found = {name: reference for name, reference in written.items() if reference is not None}
    if not trust:
        places = ", ".join(f"{x} ({references.location(x)})" for x in found.values())
        raise ConfigError(
            f"its measures are custom code, {places}: to import it, add --trust (trust=True), or"
            " name them again with --measure (measure=...)"
        )
    return {name: references.load(reference) for name, reference in found.items()}
