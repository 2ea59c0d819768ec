"""The compiled loop contains no cond, no work on the whole memory, and no batched clock."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core
from jax.interpreters import partial_eval

import purejaxrl_sac as prl
from purejaxrl_sac.agents import ALGORITHMS
from purejaxrl_sac.experiment.devices.mesh import mesh_for
from purejaxrl_sac.experiment.runs import engine, plans
from purejaxrl_sac.types import Transition
from tests.conftest import TABULAR, quick, small

CAPACITY = 7_776  # larger than any other array


def equations(jaxpr, outer=False):
    """Innermost equations; with `outer`, also those that contain others, such as scan and cond."""
    for equation in jaxpr.eqns:
        inner = [
            sub.jaxpr if isinstance(sub, core.ClosedJaxpr) else sub
            for value in equation.params.values()
            for sub in (value if isinstance(value, tuple | list) else [value])
            if isinstance(sub, core.ClosedJaxpr | core.Jaxpr)
        ]
        if outer or not inner:
            yield equation
        for sub in inner:
            yield from equations(sub, outer)


def traced(config, seeds, copied_clock=False):
    keys = jax.random.split(jax.random.key(0), seeds)
    axes = prl.seed_axes(jax.eval_shape(prl.init, keys[0], config))
    state = jax.eval_shape(jax.vmap(prl.init, (0, None), axes), keys, config)
    if copied_clock:
        state = state._replace(step=jax.ShapeDtypeStruct((seeds,), jnp.int32))
        axes = prl.seed_axes(state)

    def run(state):
        return jax.vmap(prl.run, (axes, None, None), (axes, 0))(state, config, 5)

    return run, state


@pytest.mark.parametrize(
    "algorithm", quick(("dqn", "rainbow", "iqn", "sac", "tqc"), "rainbow", "iqn", "tqc")
)
def test_training_has_no_cond(algorithm):
    config = small(algorithm)
    jaxpr = jax.make_jaxpr(jax.vmap(prl.make_train(config)))(jax.random.split(jax.random.key(0)))
    names = [equation.primitive.name for equation in equations(jaxpr.jaxpr, outer=True)]
    assert {"scan", "dot_general", "dynamic_update_slice"} <= set(names)
    assert not {"while", "top_k", "sort", "debug_callback", "io_callback"} & set(names)
    # a cond on the platform is resolved at compile time
    assert names.count("cond") == names.count("platform_index")


@pytest.mark.parametrize("algorithm", ("q_learning", "double_q_learning", "sarsa", "q_lambda"))
def test_tabular_training_updates_its_tables_in_two_scatters(algorithm):
    config = small(algorithm)
    jaxpr = jax.make_jaxpr(jax.vmap(prl.make_train(config)))(jax.random.split(jax.random.key(0)))
    names = {equation.primitive.name for equation in equations(jaxpr.jaxpr)}
    assert not {"cond", "while", "sort", "debug_callback", "io_callback"} & names
    assert str(jaxpr).count("scatter-add[") == 2  # values and visits


@pytest.mark.parametrize("copied_clock", (False, True), ids=("fresh", "copied clock"))
@pytest.mark.parametrize("seeds", (1, 4))
@pytest.mark.parametrize("algorithm", ("dqn", "sac"))
def test_only_the_insert_accesses_the_whole_memory(algorithm, seeds, copied_clock):
    run, state = traced(small(algorithm, capacity=CAPACITY), seeds, copied_clock)
    allowed = {"dynamic_update_slice", "reshape", "squeeze", "broadcast_in_dim"}
    inserts = 0
    for equation in equations(jax.make_jaxpr(run)(state).jaxpr):
        if any(var.aval.size >= seeds * CAPACITY for var in equation.outvars):
            assert equation.primitive.name in allowed, equation
            inserts += equation.primitive.name == "dynamic_update_slice"
        assert equation.primitive.name != "scatter", "a batched clock makes writes scatters"
    assert inserts == len(jax.tree.leaves(state.memory))


@pytest.mark.parametrize("seeds", quick((1, 4), 4))
def test_prioritised_replay_accesses_all_its_memory_by_scatters(seeds):
    run, state = traced(small("rainbow", capacity=CAPACITY, num_atoms=5), seeds)
    moves = {
        "dynamic_update_slice",
        "reshape",
        "squeeze",
        "broadcast_in_dim",
        "convert_element_type",
    }
    for equation in equations(jax.make_jaxpr(run)(state).jaxpr):
        if any(var.aval.size >= seeds * CAPACITY for var in equation.outvars):
            assert equation.primitive.name in moves | {"scatter", "scatter-max"}, equation


@pytest.mark.parametrize("seeds", quick((1, 4), 4))
@pytest.mark.parametrize("algorithm", quick(("dqn", "per_dqn", "sac"), "per_dqn", "sac"))
def test_the_compiled_loop_holds_one_copy_of_the_memory(algorithm, seeds):
    config = small(algorithm, capacity=CAPACITY)
    run, state = traced(config, seeds)
    compiled = jax.jit(run, donate_argnums=0).lower(state).compile()
    copies = re.findall(rf"= \S+\[(?:\d+,)*{CAPACITY},\d+\]\S* copy\(", compiled.as_text())
    assert not copies
    memory = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.memory))
    assert compiled.memory_analysis().temp_size_in_bytes < memory / 2


@pytest.mark.parametrize("algorithm", quick(("dqn", "per_dqn", "sac"), "per_dqn", "sac"))
def test_a_resumed_vmapped_loop_is_the_initial_one(algorithm):
    """The loops of `train`, of `run` after `init`, and of `run` with a batched clock are equal."""
    config = small(algorithm, total_steps=12 * (2 + 5))  # five iterations after the warm-up

    def loop(function, *arguments):
        jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
        scans = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
        return str(scans[-1].params["jaxpr"])

    fresh = loop(jax.vmap(prl.make_train(config)), jax.random.split(jax.random.key(0), 4))
    continued, copied = (traced(config, 4, copied_clock) for copied_clock in (False, True))
    assert "dynamic_update_slice" in fresh
    assert loop(*continued) == fresh
    assert loop(*copied) == fresh


@pytest.mark.parametrize("seeds", quick((1, 2), 2))
def test_deduplicated_images_are_never_copied(seeds):
    """They take one bit per number, and the compiled loop needs little more memory."""
    config = small("dqn", env="Breakout-MinAtar", capacity=16 * CAPACITY)
    run, state = traced(config, seeds)
    memory = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.memory))
    assert memory < seeds * 16 * CAPACITY * 64
    compiled = jax.jit(run, donate_argnums=0).lower(state).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < memory / 10


def test_finiteness_is_computed_of_floating_metrics_only():
    """Of whole numbers, it would be a constant of all lanes and iterations."""
    plan = plans.plan(small("q_learning"), 2)
    _, chunks = engine.training_programs(plan, mesh_for(2, 1), [5])
    jaxpr = chunks[5].function.trace(*chunks[5].arguments).jaxpr.jaxpr
    found = [x for x in equations(jaxpr) if x.outvars[0].aval.shape == (2, 5)]
    made = [x for x in found if x.outvars[0].aval.dtype == bool]
    assert {x.primitive.name for x in made} == {"and", "is_finite"}


OTHERS = {"activation": "silu", "compute_dtype": "bfloat16", "cell": "lstm", "sequence_length": 1}
OF_EXPLORATION = {"exploration", "alpha", "bonus"}  # not used by every exploration


@pytest.mark.parametrize("algorithm", quick(ALGORITHMS, "rainbow", "simba", "crossq", "sac"))
def test_no_field_is_ignored(algorithm):
    """Changing any field changes the compiled program or its inputs, of `init` or of `run`."""
    config = small(algorithm)
    layers = [x for x in ("hidden_sizes", "critic_hidden_sizes") if hasattr(config, x)]
    config = config.replace(**dict.fromkeys(layers, (8,)))
    common = {field.name for field in dataclasses.fields(prl.Config)}
    fields = {f.name: f for f in dataclasses.fields(config) if f.name not in common}
    if algorithm in TABULAR:
        fields = {name: field for name, field in fields.items() if name not in OF_EXPLORATION}

    def start(config):
        return str(jax.make_jaxpr(prl.init)(key, config))

    def loop(config):
        return str(jax.make_jaxpr(prl.run, static_argnums=2)(state, config, 1))

    key, leaves = jax.random.key(0), jax.tree_util.tree_leaves_with_path(config)
    state, whole = jax.eval_shape(prl.init, key, config), jax.make_jaxpr(prl.train)(key, config)
    _, (_, *used) = partial_eval.dce_jaxpr(whole.jaxpr, [True] * len(whole.jaxpr.outvars))
    ignored = {path[0].name for (path, _), use in zip(leaves, used, strict=True) if not use}
    first, then = start(config), loop(config)
    for name, field in fields.items():
        if not field.metadata.get("pytree_node", True):
            other = OTHERS[name] if name in OTHERS else 2 * getattr(config, name)
            changed = config.replace(**{name: other})
            if start(changed) == first and loop(changed) == then:
                ignored.add(name)
    assert not ignored & set(fields)


@pytest.mark.parametrize("algorithm", ["dqn", "per_dqn"])
def test_indices_of_reads_are_divided_without_corrections_for_negative_numbers(algorithm):
    config = small(algorithm)
    _, _, memory = prl.build(config)
    one = jnp.ones((config.rollout_length, config.num_envs))
    obs = jnp.ones((*one.shape, 4))
    state = memory.init(Transition(obs, one.astype(jnp.int32), one, one, obs, one > 0))

    def draw_and_sample(key, state, step):
        draws = memory.draw(key, state, step, 2)
        return memory.sample(state, jax.tree.map(lambda x: x[0], draws))

    jaxpr = jax.make_jaxpr(draw_and_sample)(jax.random.key(0), state, jnp.int32(8))
    used = {equation.primitive.name for equation in equations(jaxpr.jaxpr)}
    assert "rem" in used and "sign" not in used
