"""Searches: which points survive, what is copied, and reproducibility."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_sac import ConfigError
from purejaxrl_sac.experiment.devices import mesh, resources
from purejaxrl_sac.experiment.errors import RunWarning
from purejaxrl_sac.experiment.runs import engine, plans
from purejaxrl_sac.experiment.tuning import journal, points, search
from purejaxrl_sac.experiment.tuning.search import halving, lanes, population
from purejaxrl_sac.types import TrainState
from tests.conftest import small
from tests.test_runs import TINY, same

RATE = "learning_rate"
RATES = points.grid(learning_rate=[0.0, 0.3, 0.6, 0.9])


def test_rungs_end_with_the_run_and_leave_one_point():
    assert halving.rung_ends(270, 27, 3) == [10, 30, 90, 270]
    assert halving.rung_ends(270, 26, 3) == [30, 90, 270]
    assert halving.rung_ends(270, 2, 3) == [270]
    assert halving.rung_ends(270, 27, 3, first=1 / 9) == [30, 90, 270]
    assert halving.rung_ends(270, 27, 3, first=0.2) == [54, 162, 270]
    with pytest.raises(ConfigError, match="first is 0"):
        halving.rung_ends(270, 27, 3, first=0.0)


def test_the_best_fraction_of_all_seen_scores_survives():
    scores = np.array([1.0, 5, -np.inf, 3, 4, 2])
    assert halving.survivors(scores, scores, 3).tolist() == [1, 4]
    assert halving.survivors(scores, scores, 6).tolist() == [1]
    none = halving.survivors(scores, [*scores, 10, 11, 12, 13], 3)
    assert len(scores[none]) == 0
    assert halving.survivors(scores, [*scores, 4.5, 0, 0], 3).tolist() == [1, 4]
    assert halving.survivors(np.ones(4), np.ones(4), 2).tolist() == [0, 1]
    assert len(halving.survivors(np.full(2, -np.inf), np.full(2, -np.inf), 2)) == 0


def test_lanes_are_gathered_on_the_devices():
    two, one = mesh.mesh_for(5, 2), mesh.mesh_for(3, 1)
    plan = plans.plan(TINY, 5)
    state = engine.initial_state(plan, engine.compile_run(plan, mesh=two))
    for new in (two, one):
        taken = lanes.take_lanes(state, np.array([4, 0, 0]), two, new)
        assert len(taken.agent.q) == mesh.padded(3, new) and int(taken.step) == int(state.step)
        expected = jax.tree.map(lambda x: x[np.array([4, 0, 0])] if x.ndim else x, state)
        assert same(mesh.trim(taken, 3, new), expected)


def test_gathering_lanes_again_does_not_compile_again(caplog):
    two = mesh.mesh_for(4, 2)
    four = mesh.fill({"x": jnp.arange(12.0).reshape(4, 3), "step": jnp.int32(0)}, 4, two)
    state = TrainState(key=four["x"], step=four["step"], env=(), agent=(), memory=())
    with jax.log_compiles():
        for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 1, 1]):
            lanes.take_lanes(state, np.array(order), two, two)
            mesh.fill({"x": jnp.ones((3, 5))}, 3, two)
    messages = [x.getMessage() for x in caplog.records]
    for name in ("_gather", "_complete"):
        assert len([x for x in messages if f"Compiling jit({name})" in x]) == 1, messages


def test_survivors_of_halving_train_as_if_alone():
    """On two devices, then one."""
    rungs = []
    found = search.successive_halving(TINY, RATES, seeds=2, eta=2, episodes=4, on_rung=rungs.append)
    assert [len(rung.points) for rung in rungs] == [4, 2, 1]
    assert rungs[-1].steps == plans.plan(TINY, 1).total and rungs[0].steps < rungs[1].steps
    best = np.sort(np.argsort(-rungs[0].scores.mean(1), kind="stable")[:2])
    assert rungs[1].points.tolist() == best.tolist() and found.best == rungs[-1].points[0]
    assert len(found.table()) == 7 and found.table()[-1]["point"] == found.best
    point = found.points[found.best]
    alone = search.successive_halving(TINY, [point], seeds=2, eta=2, episodes=4, devices=1)
    np.testing.assert_array_equal(alone.rungs[0][-1].scores, rungs[-1].scores)


def test_the_best_of_a_search_whose_finalists_diverge_is_that_of_an_earlier_rung():
    def rung(steps, points, scores):
        return halving.Rung(steps, np.array(points), np.array(scores)[:, None])

    first, nan = rung(10, [0, 1, 2], [1.0, 3.0, 2.0]), np.nan
    assert halving.best_of([first, rung(20, [1, 2], [4.0, 5.0])]) == 2
    assert halving.best_of([first, rung(20, [1], [nan])]) == 1
    assert halving.best_of([rung(10, [0, 1], [nan, nan])]) is None


class Stop(Exception):
    pass


def stop_after(count):
    """A callback that fails at its count-th call, as a killed search would."""
    calls = iter(range(1, 100))

    def callback(result):
        if next(calls) == count:
            raise Stop

    return callback


@pytest.mark.parametrize(
    ("lanes", "stops"), [(None, (1,)), pytest.param(2, (1, 3), marks=pytest.mark.slow)]
)
def test_a_killed_halving_continues_with_equal_results(lanes, stops, tmp_path):
    """With two lanes, the second stop is in the second batch."""
    out = tmp_path / "search"
    options = {"seeds": 1, "eta": 2, "episodes": 2, "devices": 1, "first": 0.5, "max_lanes": lanes}
    whole = search.successive_halving(TINY, RATES, **options)
    for count in stops:
        with pytest.raises(Stop):
            search.successive_halving(TINY, RATES, on_rung=stop_after(count), out=out, **options)
        lines = (out / "records.jsonl").read_text().splitlines(keepends=True)
        assert len(lines) == count
    found = search.successive_halving(TINY, RATES, out=out, **options)
    assert found.best == whole.best and len(found.rungs) == len(whole.rungs)
    for batches in zip(found.rungs, whole.rungs, strict=True):
        for a, b in zip(*batches, strict=True):
            np.testing.assert_array_equal(a.points, b.points)
            np.testing.assert_array_equal(a.scores, b.scores)
    assert len((out / "table.csv").read_text().splitlines()) == 1 + len(whole.table())
    with pytest.raises(ConfigError, match=r"search\.json was written with eta 2 \(here 3\)"):
        search.successive_halving(TINY, RATES, out=out, **{**options, "eta": 3})


def test_damaged_records_are_repeated(tmp_path):
    with journal.opened(tmp_path / "search", "a search", TINY, {"x": 1}) as steps:
        state = TrainState(jnp.zeros(2), jnp.int32(0), (jnp.ones(2),), (), jnp.ones((2, 3)))
        for score in (1.0, 2.0, 3.0):
            steps.add(np.array([score, np.nan], np.float32), state, 2)
    path = tmp_path / "search" / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2].replace("3", "4")]))
    with journal.opened(tmp_path / "search", "a search", TINY, {"x": 1}) as steps:
        assert steps.scores(2) is None and steps.checkpoints.steps() == [2]
        np.testing.assert_array_equal(steps.scores(1), [2.0, np.nan])
    assert path.read_text() == "".join(lines[:2])
    other = journal.opened(tmp_path / "search", "a search", TINY, {"x": 2})
    with pytest.raises(ConfigError, match=r"x 1 \(here 2\): continue with the same"), other:
        pass


def test_records_after_a_torn_line_are_kept_and_those_after_a_missing_one_are_not(tmp_path):
    def opened():
        return journal.opened(tmp_path / "search", "a search", TINY, {"x": 1})

    state = TrainState(jnp.zeros(2), jnp.int32(0), (jnp.ones(2),), (), jnp.ones((2, 3)))
    path = tmp_path / "search" / "records.jsonl"
    for step in range(3):
        with opened() as steps:
            assert steps.scores(step) is None
            assert step == 0 or steps.scores(step - 1)[0] == step - 1
            steps.add(np.float32([step, 0]), state, 2)
        path.write_text(path.read_text() + '{"step": 2, "sco')
    first, _, third, _ = path.read_text().splitlines(keepends=True)
    path.write_text(first + third)
    with pytest.warns(RunWarning, match="step 1 is damaged"), opened() as steps:
        assert steps.scores(0) is None


def test_a_killed_population_continues_with_equal_results(tmp_path):
    out = tmp_path / "search"
    options = {"low": {RATE: 0.0}, "high": {RATE: 1.0}, "generations": 3, "episodes": 2}
    whole = search.population_based_training(TINY, RATES, devices=1, **options)
    stopped = partial(search.population_based_training, TINY, RATES, devices=1, out=out, **options)
    with pytest.raises(Stop):
        stopped(on_generation=stop_after(2))
    for file in (out / "checkpoints" / "2").glob("policy/d/*"):
        file.write_bytes(b"")
    with pytest.warns(RunWarning, match="step 2 is damaged .*: repeating it"):
        found = stopped()
    again = stopped()  # nothing is left to train
    for result in (found, again):
        assert same(result.state, whole.state) and result.best == whole.best
        assert result.table() == whole.table()


@pytest.mark.slow
def test_later_batches_are_compared_with_earlier_ones():
    found = search.successive_halving(TINY, RATES, seeds=2, eta=2, episodes=4, max_lanes=4)
    first, second = found.rungs
    assert first[0].points.tolist() == [0, 1] and second[0].points.tolist() == [2, 3]
    assert len(first[-1].points) == 1
    scores = np.concatenate([first[0].scores, second[0].scores]).mean(1)
    allowed = np.flatnonzero(scores[2:] >= np.sort(scores)[::-1][1])
    survivors = second[1].points - 2 if len(second) > 1 else np.array([])
    assert set(survivors) <= set(allowed)


def test_exploiting_copies_the_best_and_exploring_stays_in_range():
    scores = jnp.array([3.0, jnp.nan, 1, 9, 8, 5, 4, 2])
    values = {"tau": jnp.linspace(0.1, 0.8, 8)}
    ranges = population.Ranges({"tau": 0.1}, {"tau": 0.6})
    key = jax.random.key(0)
    parents, after = population.exploit_and_explore(key, scores, values, ranges)
    assert (
        parents[3] == 3 and parents[4] == 4 and set(parents[jnp.array([1, 2])].tolist()) <= {3, 4}
    )
    untouched = np.array([0, 3, 4, 5, 6, 7])
    assert parents[untouched].tolist() == untouched.tolist()
    np.testing.assert_array_equal(after["tau"][untouched], values["tau"][untouched])
    for child in (1, 2):
        ratio = after["tau"][child] / values["tau"][parents[child]]
        assert (
            np.isclose(ratio, 0.8)
            or np.isclose(ratio, 1.25)
            or np.isclose(after["tau"][child], 0.6)
        )
    again = population.exploit_and_explore(key, scores, values, ranges)
    np.testing.assert_array_equal(again[0], parents)
    many = [
        population.exploit_and_explore(k, scores, values, ranges)[1]["tau"][1] for k in keys(20)
    ]
    assert len({float(x) for x in many}) == 4  # two parents, each up or down


def test_whole_numbers_are_explored_as_whole_numbers():
    scores, values = jnp.arange(8.0), {"target_period": jnp.arange(6, 14)}
    ranges = population.Ranges({"target_period": 6}, {"target_period": 15})
    explored = [
        population.exploit_and_explore(key, scores, values, ranges)[1]["target_period"][:2]
        for key in keys(9)
    ]
    assert all(jnp.issubdtype(x.dtype, jnp.integer) for x in explored)
    assert {x for pair in explored for x in pair.tolist()} <= {10, 15}  # 12 or 13 in 1.25


def test_a_population_has_no_gradient_norm_unless_it_is_limited():
    plan = lanes.lane_plan(small("dqn"), RATES, seeds=1, seed=0, episodes=2)
    config = population._config_lanes({RATE: jnp.zeros(4)}, plan, mesh.mesh_for(4))
    assert config.max_grad_norm is None


def test_a_member_without_score_is_never_copied():
    scores = jnp.array([jnp.nan, jnp.nan, 1.0, jnp.nan, jnp.nan, jnp.nan, jnp.nan, jnp.nan])
    ranges = population.Ranges({}, {})
    parents, _ = population.exploit_and_explore(jax.random.key(0), scores, {}, ranges, fraction=0.5)
    assert (parents[parents != jnp.arange(8)] == 2).all() and (parents == 2).sum() >= 4


def keys(count):
    return jax.random.split(jax.random.key(1), count)


def test_the_seed_determines_a_population_on_any_number_of_devices():
    options = {"low": {"learning_rate": 0.01}, "high": {"learning_rate": 1.0}, "generations": 3}
    initial = points.grid(learning_rate=[0.01, 0.02, 0.3, 0.5, 0.9])
    one, two = (
        search.population_based_training(TINY, initial, episodes=4, devices=d, **options)
        for d in (1, 2)
    )
    assert len(one.generations) == 3 and len(two.state.agent.q) == 5
    for a, b in zip(one.generations, two.generations, strict=True):
        np.testing.assert_array_equal(a.parents, b.parents)
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_array_equal(a.values["learning_rate"], b.values["learning_rate"])
    assert same(one.state, two.state)
    assert (one.generations[0].parents != np.arange(5)).sum() == 1
    assert (one.generations[-1].parents == np.arange(5)).all()
    key = jax.random.key_data(one.state.key)
    assert (
        len(np.unique(key, axis=0)) == 5
    )  # a copy does not repeat the random numbers of its parent


train_population = partial(search.population_based_training, low={RATE: 0.0}, high={RATE: 1.0})


@pytest.mark.parametrize(
    ("search_call", "message"),
    [
        (lambda: search.successive_halving(TINY, RATES, eta=1), "eta is 1"),
        (
            lambda: search.successive_halving(small("dqn"), points.grid(num_envs=[3, 4])),
            "share one program: sweep static fields",
        ),
        (
            lambda: search.population_based_training(TINY, RATES, low={}, high={}),
            "learning_rate needs a bound in low and in high",
        ),
        (
            lambda: search.population_based_training(TINY, RATES[:1], low={}, high={}),
            "at least two members",
        ),
        (
            lambda: train_population(TINY, RATES, high={RATE: 0.5}),
            "learning_rate is bounded by 0.0 and 0.5, but points lie outside",
        ),
        (lambda: train_population(TINY, RATES, low={RATE: -1.0}), "learning_rate is -1.0"),
        (lambda: train_population(TINY, RATES, low={RATE: None}), "learning_rate has a bound that"),
        (lambda: train_population(TINY, RATES, factor=-2.0), "factor is -2.0, but must be > 0"),
        (lambda: train_population(TINY, RATES, generations=0), "generations is 0"),
        (lambda: search.successive_halving(TINY, RATES, seeds=4, max_lanes=3), "lanes is 3"),
    ],
)
def test_invalid_searches_are_rejected(search_call, message):
    with pytest.raises(ConfigError, match=message):
        search_call()


def test_points_that_repeat_are_one_candidate_but_several_members(monkeypatch):
    monkeypatch.setattr(resources, "available", lambda: 1_000)  # before anything is compiled
    text, memory = "1 of 5 points repeat others: 4 are trained", "are free: lower"
    with pytest.warns(UserWarning, match=text), pytest.raises(ConfigError, match=memory):
        search.successive_halving(TINY, [*RATES, RATES[0]])
    with pytest.raises(ConfigError, match=memory):
        train_population(TINY, RATES[:1] * 8)


@pytest.mark.parametrize("search_of", [search.successive_halving, train_population])
def test_lanes_that_do_not_fit_into_memory_are_rejected(search_of, monkeypatch):
    monkeypatch.setattr(resources, "available", lambda: 1_000)
    with pytest.raises(ConfigError, match="are free: lower"):
        search_of(TINY, RATES)


@pytest.mark.slow
def test_optuna_receives_the_scores_of_its_trials(monkeypatch, tmp_path):
    trained, train = [], engine.train_seeds
    monkeypatch.setattr(engine, "train_seeds", lambda p, **o: (trained.append(p), train(p, **o))[1])
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2)
    )

    def suggest(trial):
        return {"learning_rate": trial.suggest_float("learning_rate", 0.0, 1.0)}

    options = {"batch": 3, "rounds": 2, "seeds": 2, "episodes": 4}
    best = search.optuna_search(TINY, study, suggest, **options)
    out = tmp_path / "search"
    for rounds in (1, 2):  # the second call continues
        again = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2)
        )
        on_disk = {**options, "rounds": rounds, "out": out}
        found = search.optuna_search(TINY, again, suggest, **on_disk)
    assert found == best and len(list((out / "rounds").iterdir())) == 2
    assert [trial.value for trial in again.trials] == [trial.value for trial in study.trials]
    sampler = optuna.samplers.RandomSampler(seed=1)
    other = optuna.create_study(direction="maximize", sampler=sampler)
    with pytest.raises(ConfigError, match="has other points than the study suggests"):
        search.optuna_search(TINY, other, suggest, **on_disk)
    assert all(plan.chunk == TINY.iterations and not plan.eval_every for plan in trained)
    assert len(study.trials) == 6 and best == {"learning_rate": study.best_params["learning_rate"]}
    trial = study.trials[1]
    plan = plans.plan(TINY.replace(**trial.params), 2, chunks=1, episodes=4)
    scores = engine.train_seeds(plan, devices=1).evaluation.mean(1)
    np.testing.assert_allclose(trial.value, np.mean(scores), rtol=1e-5)
    with pytest.raises(ConfigError, match="the study minimises"):
        search.optuna_search(TINY, optuna.create_study(), suggest)
