"""Replay of sequences, and the algorithms that learn from it: recurrent DQN, R2D2 and SAC."""

import itertools
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from gymnax.environments import spaces

import purejaxrl_sac as prl
from purejaxrl_sac import distributions, envs, heads, losses, memory, networks
from purejaxrl_sac.agents import dqn, off_policy, recurrent_dqn, recurrent_sac, sac
from purejaxrl_sac.agents.sequences import Remembered
from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.memory.replay import SMALLEST
from purejaxrl_sac.memory.storage import deduplicated, n_step, ring
from purejaxrl_sac.returns import n_step_rows
from purejaxrl_sac.types import Index, Sample, Transition
from tests.conftest import built, init, quick, small
from tests.probes import CONTINUOUS, Counter, Probe
from tests.test_recurrent import Alike, Forgetful, Memoryless, Recall

ALGORITHMS = ("recurrent_dqn", "r2d2", "recurrent_sac")
SLOW = pytest.mark.slow

# storage and sampling

PERIOD, LENGTH, ROWS, ENVS = 3, 6, 12, 2


def rollout_at(step):
    """Three steps of two environments, whose numbers identify step and environment.

    Episodes are truncated at every fifth step and terminate at every seventh.
    """
    time = step + np.arange(PERIOD, dtype=np.int32)[:, None] + np.zeros((1, ENVS), np.int32)
    number = time * 10 + np.arange(ENVS, dtype=np.int32)
    truncated, terminated = time % 5 == 4, time % 7 == 6
    return Transition(
        obs=np.float32(number)[..., None],
        action=number,
        reward=np.float32(number),
        discount=1 - np.float32(terminated),
        next_obs=np.float32(number + np.where(truncated, 1_000, 10))[..., None],
        last=truncated | terminated,
        extras=Remembered((), {"h": np.float32(number[..., None] + np.array([0.25, 0.5]))}),
    )


def filled(part, steps):
    """The state of a storage or memory after every rollout, from the first on."""
    state = part.init(rollout_at(0))
    add = jax.jit(part.add)
    for step in range(0, steps, PERIOD):
        state = add(state, jnp.int32(step), rollout_at(step))
        yield step + PERIOD, state


@pytest.mark.parametrize("kind", (ring, deduplicated))
def test_sequences_are_read_whole_with_the_carry_before_them(kind):
    storage = memory.sequence_storage(kind(ROWS * ENVS, ENVS), LENGTH)
    read = jax.jit(storage.read)
    for step, state in filled(storage, 5 * ROWS):
        for first in range(max(0, step - ROWS), step - LENGTH + 1, PERIOD):
            index = Index(np.full(ENVS, first, np.int32), np.arange(ENVS, dtype=np.int32))
            sample = read(state, jnp.int32(step), index)
            parts = [rollout_at(t) for t in range(first, first + LENGTH, PERIOD)]
            expected = jax.tree.map(lambda *x: np.concatenate(x), *parts)
            sample = jax.tree.map(np.asarray, sample)
            found, carry = sample.transition, expected.extras.carry["h"][:1]
            np.testing.assert_array_equal(found.extras.carry["h"], carry)
            ended = (expected.discount == 0)[..., None]  # their next_obs have no meaning
            known = np.where(ended, 0, found.next_obs), np.where(ended, 0, expected.next_obs)
            np.testing.assert_array_equal(*known)
            chex.assert_trees_all_equal(
                found._replace(extras=(), next_obs=()), expected._replace(extras=(), next_obs=())
            )
            np.testing.assert_array_equal(sample.weight, 1)
            chex.assert_trees_all_equal(sample.index, index)


def expected_starts(step):
    """First steps of the sequences of which all steps are stored, from the definition."""
    return {t for t in range(0, step, PERIOD) if t >= step - ROWS and t + LENGTH <= step}


def test_uniform_draws_are_all_complete_sequences_and_no_others():
    part = memory.uniform_sequences(
        memory.sequence_storage(ring(ROWS * ENVS, ENVS), LENGTH), 64, LENGTH, PERIOD
    )
    draw, sample = jax.jit(part.draw, static_argnums=3), jax.jit(part.sample)
    for step, state in filled(part, 4 * ROWS):
        if step < LENGTH:
            continue
        draws = draw(jax.random.key(step), state, jnp.int32(step), 3)
        chex.assert_shape(draws.chosen, (3, 64))
        found = set()
        for g in range(3):
            one = sample(state, jax.tree.map(lambda x, g=g: np.asarray(x)[g], draws))
            one = jax.tree.map(np.asarray, one)
            time, env = one.transition.action // 10, one.transition.action % 10
            np.testing.assert_array_equal(time, time[0] + np.arange(LENGTH)[:, None])
            np.testing.assert_array_equal(env, env[:1].repeat(LENGTH, 0))
            assert (np.asarray(time[0]) + LENGTH <= step).all()  # not across the write head
            found |= {*zip(time[0].tolist(), env[0].tolist(), strict=True)}
        assert found == set(itertools.product(expected_starts(step), range(ENVS)))


def prioritized(batch_size=4, omega=0.5, beta=0.4, eta=0.9):
    storage = memory.sequence_storage(ring(ROWS * ENVS, ENVS), LENGTH)
    part = memory.prioritized_sequences(
        storage, batch_size, LENGTH, PERIOD, omega, beta, eta, total_steps=1_000 * ENVS
    )
    draw, sample = jax.jit(part.draw, static_argnums=3), jax.jit(part.sample)
    return part._replace(draw=draw, sample=sample)


def test_priorities_are_those_of_complete_sequences():
    """New sequences have the largest priority so far; those that are not whole have none."""
    part = prioritized()
    for step, state in filled(part, 4 * ROWS):
        leaves = np.asarray(state.tree[0][: ROWS // PERIOD * ENVS]).reshape(-1, ENVS)
        slots = {t % ROWS // PERIOD for t in expected_starts(step)}
        assert {*np.flatnonzero(leaves[:, 0])} == {*np.flatnonzero(leaves[:, 1])} == slots
        np.testing.assert_array_equal(leaves[sorted(slots)], 1)
        if slots:
            draws = part.draw(jax.random.key(step), state, jnp.int32(step), 1)
            sample = part.sample(state, jax.tree.map(lambda x: x[0], draws))
            time = np.asarray(sample.transition.action) // 10
            assert set(time[0].tolist()) <= expected_starts(step)
            np.testing.assert_array_equal(time, time[0] + np.arange(LENGTH)[:, None])
            np.testing.assert_array_equal(sample.weight, 1)


def test_priorities_and_weights_by_hand():
    """Two of the four steps learned from: p = .9 max + .1 mean; weights (N P)^-beta, normalised."""
    part = prioritized()
    *_, (step, state) = filled(part, 2 * ROWS)
    whole = Transition(*[()] * 7)._replace(last=jnp.zeros((LENGTH, 4), bool))
    sample = Sample(whole, jnp.ones((LENGTH, 4)), jnp.array([0, 1, 2, 3], jnp.int32))
    errors = jnp.array([[1.0, -4.0, 0.0, 2.0], [3.0, 2.0, 0.0, -2.0]])
    state = part.update_priorities(state, sample, errors.reshape(-1))
    p = np.array([2.9, 3.9, 0.0, 2.0]) + SMALLEST
    np.testing.assert_allclose(state.tree[0][:4], p**0.5, rtol=1e-5)
    np.testing.assert_allclose(state.largest, 3.9, rtol=1e-5)
    leaves = np.asarray(state.tree[0], np.float64)
    assert (leaves > 0).sum() == 6  # of 8 sequences, the two newest are not whole yet
    probability = leaves / leaves.sum()
    draws = part.draw(jax.random.key(0), state, jnp.int32(step), 200)
    drawn = [part.sample(state, jax.tree.map(lambda x, g=g: x[g], draws)) for g in range(200)]
    for one in drawn[:5]:
        weight = (6 * probability[one.index]) ** -(0.4 + 0.6 * step / 1_000)
        weight = np.broadcast_to(weight / weight.max(), (LENGTH, 4))
        np.testing.assert_allclose(one.weight, weight, rtol=1e-4)
    frequency = np.bincount(np.concatenate([x.index for x in drawn]), minlength=8) / 800
    np.testing.assert_allclose(frequency, probability[:8], atol=0.03)


def test_lost_steps_do_not_count_towards_priorities():
    part = prioritized(batch_size=1)
    *_, (_, state) = filled(part, ROWS)
    whole = Transition(*[()] * 7)._replace(last=jnp.zeros((LENGTH, 1), bool))
    weight = jnp.ones((LENGTH, 1)).at[-1].set(0)
    sample = Sample(whole, weight, jnp.array([0], jnp.int32))
    state = part.update_priorities(state, sample, jnp.array([2.0, 4.0, 100.0]))
    np.testing.assert_allclose(state.tree[0][0], (0.9 * 4 + 0.1 * 3 + SMALLEST) ** 0.5, rtol=1e-5)


def test_n_steps_inside_a_sequence_are_those_of_a_ring_that_ends_with_it():
    storage = ring(ROWS * ENVS, ENVS)
    *_, (step, state) = filled(storage, ROWS)
    time, env = np.indices((ROWS, ENVS), np.int32)
    index = Index(time, env)
    one, several = (
        jax.device_get(jax.jit(x.read)(state, np.int32(step), index).transition)
        for x in (storage, n_step(storage, 3, 0.9))
    )
    of_rows = jax.jit(partial(n_step_rows, n=3, gamma=0.9))
    reward, discount, final = jax.device_get(of_rows(one.reward, one.discount, one.last))
    np.testing.assert_allclose(reward, several.reward, rtol=1e-6)
    np.testing.assert_allclose(discount, several.discount, rtol=1e-6)
    following = np.take_along_axis(one.next_obs, final[..., None], 0)
    np.testing.assert_array_equal(following, several.next_obs)
    assert set(np.unique(final - time)) == {0, 1, 2}


def test_a_row_that_bootstraps_from_a_lost_observation_has_no_weight():
    config = small("recurrent_dqn", n_step=3, sequence_length=6, gamma=0.5)
    zero, rows = jnp.zeros(6), jnp.arange(6)
    batch = Transition((), (), zero + 1, zero + 1, (), rows == 3)
    following = dqn.NextReturn(rows, jnp.ones((6, 2)), jnp.zeros(1), None)
    weight = jnp.where(rows == 3, 0.0, 0.5)
    found, _, weight = recurrent_dqn.n_step(config, following, batch, weight, (6, 1))
    np.testing.assert_array_equal(found.outputs, [2, 3, 3, 3, 5, 5])
    np.testing.assert_array_equal(weight, [0.5, 0, 0, 0, 0.5, 0.5])


# rescaled values


def test_rescaling_is_that_of_rlax_and_its_inverse_is_exact():
    x = jnp.array([-1e4, -30.0, -1.0, -1e-3, 0.0, 1e-4, 0.5, 2.0, 300.0, 1e5])
    np.testing.assert_allclose(losses.rescale(x), rlax.signed_hyperbolic(x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(losses.unscale(losses.rescale(x)), x, rtol=1e-5)
    small = jnp.array([1e-8, 1e-6, -1e-4])  # where h(x) = (1 / 2 + epsilon) x
    np.testing.assert_allclose(losses.rescale(small), 0.501 * small, rtol=1e-4)
    np.testing.assert_allclose(losses.unscale(0.501 * small), small, rtol=1e-4)
    np.testing.assert_allclose(losses.rescale(jnp.array([3.0, -8.0])), [1.003, -2.008], rtol=1e-6)


def test_rescaled_target_by_hand():
    """h(1 + .5 h^-1(h(8))) = h(5) = sqrt(6) - 1 + .005; and h(1) where the episode terminated."""
    value = losses.rescale(jnp.full(2, 8.0))
    y = losses.rescaled_td_target(jnp.ones(2), jnp.array([1.0, 0.0]), 0.5, value)
    np.testing.assert_allclose(y, [6**0.5 - 0.995, 2**0.5 - 0.999], rtol=1e-5)
    gradient = jax.grad(lambda v: losses.rescaled_td_target(*jnp.ones((2, 2)), 0.5, v).sum())
    np.testing.assert_array_equal(gradient(value), 0)


@pytest.mark.parametrize("algorithm", ["dqn", "recurrent_dqn", "r2d2"])
def test_rescaled_targets_need_the_value_of_one_action(algorithm):
    """h^-1 of the mean of h(0) and h(100) is 29.8, not 50."""
    config, base = small(algorithm), prl.agents.exported(algorithm)
    rescaled = partial(base, target=losses.rescaled_td_target)
    for mean in (dqn.expected, dqn.soft):
        wrong = config.replace(algorithm=partial(rescaled, bootstrap=mean))
        with pytest.raises(ConfigError, match=f"rescaled_td_.* but bootstrap, {mean.__name__}"):
            prl.build(wrong)
    for one in (dqn.maximum, dqn.double):
        prl.build(config.replace(algorithm=partial(rescaled, bootstrap=one)))


def test_soft_returns_of_several_steps_of_sequences_are_refused():
    soft = partial(prl.recurrent_dqn, bootstrap=dqn.soft)
    config = small("recurrent_dqn").replace(algorithm=soft)
    prl.build(config)
    with pytest.raises(ConfigError, match="n_step is 2, but soft returns of several steps need"):
        prl.build(config.replace(n_step=2))


# targets, burn-in and carries


class Adding:
    """The carry grows by the parameter in each step; Q(s, .) are the carry and half of it."""

    def initial_carry(self, batch):
        return jnp.zeros((batch, 1))

    def init(self, key, *inputs):
        return {"params": jnp.ones(())}

    def apply(self, variables, carry, x, start, rngs=None):
        def step(carry, start):
            carry = jnp.where(start[:, None], 0, carry) + variables["params"]
            return carry, carry

        carries = jax.lax.scan(step, carry, start)[1]
        q = carries.reshape(-1, 1, 1) * jnp.array([[1.0], [0.5]])
        return carries, q


def unrolled_by_hand(theta, carry, start):
    """Carries after each step."""
    found = []
    for begun in start:
        carry = (0 if begun else carry) + theta
        found.append(carry)
    return found


@pytest.mark.parametrize("start_carry", ("stored", "initial"))
@pytest.mark.parametrize("n", (1, 2))
@pytest.mark.parametrize("bootstrap", ("maximum", "double"))
def test_r2d2_targets_and_burn_in_by_hand(bootstrap, n, start_carry):
    """One sequence of six steps, two of them burn-in, with theta = 2 and theta- = -3.

    The fourth step is the last of its episode, by truncation. Values of s' are of the carry after
    the step, also there; the greedy action of theta- is the second, as its values are negative.
    """
    gamma, stored = 0.5, 7.0
    rewards = np.array([10.0, 20, 30, 40, 50, 60])
    last = np.array([False, False, False, True, False, False])

    def loss(params, inputs):
        value, (priority, metrics) = dqn.q_loss(params, inputs)
        target = inputs.backup(heads.mix(inputs.next_return.pi, inputs.next_return.outputs))
        more = {"target": target.squeeze(-1), "weight": inputs.weight}
        return value, (priority, {**metrics, **more})

    config = prl.RecurrentDQNConfig(
        algorithm=partial(
            recurrent_dqn.recurrent_dqn, network=lambda *_: Adding(), loss=loss,
            bootstrap=getattr(dqn, bootstrap),
        ),
        env=Probe(lambda *_: 1.0, 0), burn_in=2, sequence_length=6, rollout_length=3, n_step=n,
        gamma=gamma, learning_rate=0.0, batch_size=1, capacity=300, start_carry=start_carry,
    )  # fmt: skip
    _, agent, _ = built(config)
    state = dqn.DQNState({"params": jnp.float32(2)}, {"params": jnp.float32(-3)}, ())
    state = state._replace(opt_state=agent.init(jax.random.key(0), jnp.zeros((1, 2))).opt_state)
    column = partial(jnp.reshape, shape=(6, 1))
    transition = Transition(
        jnp.zeros((6, 1, 2)), jnp.zeros((6, 1), jnp.int32), column(jnp.float32(rewards)),
        jnp.ones((6, 1)), jnp.zeros((6, 1, 2)), column(jnp.array(last)),
        Remembered((), jnp.full((1, 1, 1), stored)),
    )  # fmt: skip
    sample = Sample(transition, jnp.arange(6.0)[:, None], jnp.zeros(1, jnp.int32))
    _, priority, metrics = agent.update(jax.random.key(0), state, sample, jnp.int32(0))

    start = np.array([False, *last[:-1]])
    first = stored if start_carry == "stored" else 0.0
    online, delayed = (unrolled_by_hand(theta, first, start) for theta in (2.0, -3.0))
    expected_q = np.array(online[2:])  # of the first action, after the burn-in
    following = []
    for before, target in zip(online[2:], delayed[2:], strict=True):
        after, after_target = before + 2.0, target - 3.0  # one step on, without a reset
        values = {"maximum": max(after_target, after_target / 2), "double": after_target}
        following.append(values[bootstrap] if after > 0 else None)
    y = []
    for t in range(4):
        g, k = 0.0, t
        for i in range(n):
            k = t + i
            g += gamma**i * rewards[2 + k]
            if last[2 + k] or k == 3:
                break
        y.append(g + gamma ** (k - t + 1) * following[k])
    np.testing.assert_allclose(metrics["target"], y, rtol=1e-6)
    np.testing.assert_allclose(priority, abs(np.array(y) - expected_q), rtol=1e-6)
    np.testing.assert_array_equal(metrics["weight"], [2, 3, 4, 5])


def test_no_gradient_passes_the_burn_in():
    """With one step after it, Q = constant + theta: the gradient is that of the last step alone."""

    def gradient(burn_in):
        config = prl.RecurrentDQNConfig(
            algorithm=partial(recurrent_dqn.recurrent_dqn, network=lambda *_: Adding()),
            env=Probe(lambda *_: 1.0, 0), burn_in=burn_in, sequence_length=3, rollout_length=3,
            gamma=0.0, batch_size=1, capacity=300,
        )  # fmt: skip
        _, agent, _ = built(config)
        state = agent.init(jax.random.key(0), jnp.zeros((1, 2)))
        zeros = jnp.zeros((3, 1))
        transition = Transition(
            jnp.zeros((3, 1, 2)), zeros.astype(jnp.int32), zeros, zeros, jnp.zeros((3, 1, 2)),
            zeros > 0, Remembered((), jnp.zeros((1, 1, 1))),
        )  # fmt: skip
        sample = Sample(transition, jnp.float32(1))
        after, *_ = agent.update(jax.random.key(0), state, sample, jnp.int32(0))
        moment = jax.tree.leaves(after.opt_state)
        return max(float(abs(x)) for x in moment if x.dtype == jnp.float32) / 0.1

    # of (3 theta)^2 / 2 with theta once, of the mean over t of (t theta)^2 / 2 with it t times
    assert gradient(2) == pytest.approx(3.0, rel=1e-5)
    assert gradient(0) == pytest.approx((1 + 4 + 9) / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "burn_in"), (pytest.param("r2d2", 2, marks=SLOW), ("recurrent_sac", 0))
)
def test_the_stored_carry_is_used_only_where_it_is_chosen(algorithm, burn_in):
    config = small(algorithm).replace(burn_in=burn_in)
    state, replay = init(jax.random.key(0), config), prl.build(config)[2]

    @jax.jit
    def first_draw(state):
        draws = replay.draw(jax.random.key(1), state.memory, state.step, 1)
        return replay.sample(state.memory, jax.tree.map(lambda x: x[0], draws))

    sample = first_draw(state)
    extras = sample.transition.extras

    def updated(start_carry):
        """The state after an update with the carries that were stored, and with others."""
        _, agent, _ = built(config.replace(start_carry=start_carry))
        for add in (0.0, 0.5):
            carry = jax.tree.map(lambda x, add=add: np.asarray(x) + np.float32(add), extras.carry)
            transition = sample.transition._replace(extras=extras._replace(carry=carry))
            changed = sample._replace(transition=transition)
            after, *_ = agent.update(jax.random.key(2), state.agent, changed, np.int32(0))
            yield np.concatenate([np.ravel(x) for x in jax.tree.leaves(after)])

    stored, other = updated("stored")
    initial, same = updated("initial")
    assert (stored != other).any()
    np.testing.assert_array_equal(initial, same)
    np.testing.assert_array_equal(initial, stored)  # of the first steps of a run


def flat_sample(env, batch=5):
    """Random sequences of which episodes end inside, and their rows as single transitions."""
    bound = envs.bind(env)
    rng = np.random.default_rng(3)
    shape = (4, batch)
    size = bound.observation_space.shape
    action = np.asarray(bound.random_action(jax.random.key(3), 4 * batch))
    last = rng.random(shape) < 0.3
    sequence = Transition(
        obs=rng.standard_normal((*shape, *size), np.float32),
        action=action.reshape(*shape, *action.shape[1:]),
        reward=rng.standard_normal(shape, np.float32),
        discount=1 - np.float32(last & (rng.random(shape) < 0.5)),
        next_obs=rng.standard_normal((*shape, *size), np.float32),
        last=last,
    )
    assert last.any() and not sequence.discount.all()
    weight = np.linspace(0.5, 1.5, batch, dtype=np.float32)
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sequence)
    single = Sample(rows, np.broadcast_to(weight, shape).reshape(-1))
    return sequence, weight, single


def compared(ours, theirs, sequence, weight, single, carry):
    """States after one update by two agents with equal parameters."""
    key, obs = jax.random.key(5), single.transition.obs[:2]
    start, other = ours.init(key, obs), theirs.init(key, obs)
    chex.assert_trees_all_close(jax.tree.leaves(start), jax.tree.leaves(other), rtol=1e-6)
    many = Sample(sequence._replace(extras=Remembered((), carry)), weight)
    found = ours.update(key, start, many, jnp.int32(0))
    expected = theirs.update(key, other, single, jnp.int32(0))
    chex.assert_trees_all_close(
        jax.tree.leaves(found), jax.tree.leaves(expected), rtol=1e-4, atol=1e-5
    )


def forgetful(build, kind, **parts):
    return lambda *args: kind(build(*args, memory=lambda config: Forgetful(), **parts))


@pytest.mark.parametrize(
    ("head", "bootstrap"),
    ((heads.scalar, dqn.double), (heads.categorical, dqn.maximum), (heads.quantile, dqn.expected)),
)
def test_a_torso_without_memory_is_dqn(head, bootstrap):
    class Fields(prl.C51Config, recurrent_dqn.RecurrentDQNFields, prl.QRDQNConfig):
        pass

    build, env = networks.recurrent_q_network, Probe(lambda *_: 1.0, 3)
    config = Fields(env=env, tau=0.1, target_period=1, hidden_sizes=(8, 8), v_max=5.0)
    config = config.replace(huber_delta=1.0)
    parts = {"head": head, "bootstrap": bootstrap}
    ours = partial(recurrent_dqn.recurrent_dqn, network=forgetful(build, Alike), **parts)
    theirs = partial(dqn.dqn, network=forgetful(build, Memoryless), **parts)
    agents = [built(config.replace(algorithm=x))[1] for x in (ours, theirs)]
    carry = jnp.zeros((1, 5, 1))
    compared(*agents, *flat_sample(env), carry)


class Acting(nn.Module):
    """`Memoryless` for networks with a second input."""

    inner: nn.Module

    def __call__(self, x, *more):
        start = jnp.zeros((1, len(x)), bool)
        return self.inner(self.inner.initial_carry(len(x)), x, start, *more)[1]


class Alike2(Alike):
    def __call__(self, carry, x, start, *more):
        return self.inner(carry, x, start, *more)


def test_a_torso_without_memory_is_sac():
    env = Probe(lambda *_: 1.0, 3, action_space=CONTINUOUS)
    config = prl.RecurrentSACConfig(env=env, hidden_sizes=(8, 8), max_grad_norm=0.1, tau=0.1)
    actor, critics = networks.recurrent_actor, networks.recurrent_critics
    ours = partial(
        recurrent_sac.recurrent_sac,
        actor=forgetful(actor, Alike2), critics=forgetful(critics, Alike2),
    )  # fmt: skip
    theirs = partial(sac.sac, actor=forgetful(actor, Acting), critics=forgetful(critics, Acting))
    agents = [built(config.replace(algorithm=x))[1] for x in (ours, theirs)]
    carry = recurrent_sac.Carries(jnp.zeros((1, 5, 1)), jnp.zeros((1, 5, 2, 1)))
    compared(*agents, *flat_sample(env), carry)


class Counted:
    """A network whose carry and outputs grow by the parameter in each step: (carry, rows)."""

    def __init__(self, outputs):
        self.outputs = outputs

    def initial_carry(self, batch):
        return jnp.zeros((batch, 1))

    def init(self, key, *inputs):
        return {"params": jnp.ones(())}

    def apply(self, variables, carry, x, start, *more):
        carries, _ = Adding().apply(variables, carry, x, start)
        return carries, self.outputs(carries.reshape(-1))


def test_targets_of_sac_remember_with_the_delayed_critics():
    """y = r + gamma (Q- - alpha log pi), Q- the target's own carry after the step.

    Of four steps, the first is burn-in and the third the last of its episode, by truncation.
    """
    gamma, stored = 0.5, 7.0

    def loss(params, inputs):
        value, (priority, metrics) = sac.critic_loss(params, inputs)
        batch = inputs.batch
        q = inputs.networks.critic(params, batch.obs, batch.action, None)
        return value, (priority, {**metrics, "each": q[0], "target": inputs.target})

    algorithm = partial(
        recurrent_sac.recurrent_sac,
        actor=lambda *_: Counted(lambda c: (0 * c[:, None], 0 * c[:, None] - 5)),
        critics=lambda *_: Counted(lambda c: jnp.stack([c, c + 1])),
        critic_loss=loss,
    )
    config = prl.RecurrentSACConfig(
        algorithm=algorithm, env=Probe(lambda *_: 1.0, 0, action_space=CONTINUOUS), burn_in=1,
        sequence_length=4, rollout_length=4, gamma=gamma, batch_size=1, capacity=400, alpha=1e-9,
    )  # fmt: skip
    _, agent, _ = built(config)
    state = agent.init(jax.random.key(0), jnp.zeros((1, 2)))
    state = state._replace(
        critic=state.critic._replace(params={"params": jnp.float32(2)}),
        target_params={"params": jnp.float32(-3)},
    )
    last, zeros = jnp.array([False, False, True, False])[:, None], jnp.zeros((4, 1))
    reward = jnp.array([10.0, 20, 30, 40])[:, None]
    carry = recurrent_sac.Carries(jnp.zeros((1, 1, 1)), jnp.full((1, 1, 1), stored))
    transition = Transition(
        jnp.zeros((4, 1, 2)), zeros[..., None], reward, zeros + 1, jnp.zeros((4, 1, 2)), last,
        Remembered((), carry),
    )  # fmt: skip
    sample = Sample(transition, jnp.float32(1))
    *_, metrics = agent.update(jax.random.key(0), state, sample, jnp.int32(0))
    # after the burn-in, q is stored + 2 t, then theta alone; theta- takes one step more for s'
    np.testing.assert_allclose(metrics["each"], [11, 13, 2], rtol=1e-6)
    following = np.array([7 - 3 * 3, 7 - 3 * 4, -3 * 2])
    expected = np.array([20, 30, 40]) + gamma * following
    np.testing.assert_allclose(metrics["target"].squeeze(-1), expected, rtol=1e-5)


def test_critics_are_independent_and_alike():
    """Each critic of an ensemble is a `Recurrent` with its own slice of parameters and carries."""
    config = prl.RecurrentSACConfig(hidden_sizes=(8, 6), memory_size=4, cell="lstm")
    model = networks.recurrent_critics(config, spaces.Box(-1, 1, (3,)), size=3, num_outputs=2)
    rng = np.random.default_rng(0)
    x, action = rng.standard_normal((10, 3), np.float32), rng.standard_normal((10, 1), np.float32)
    start = np.zeros((5, 2), bool)
    start[3, 0] = True
    carry = jax.tree.map(lambda z: rng.standard_normal(z.shape, np.float32), model.initial_carry(2))
    variables = jax.jit(model.init)(jax.random.key(0), carry, x, start, action)
    outputs = jax.jit(model.apply)(variables, carry, x, start, action)
    variables, (carries, q) = jax.device_get((variables, outputs))
    apply = jax.jit(model.critic.apply)
    chex.assert_shape(q, (3, 10, 2))
    chex.assert_tree_shape_prefix(carries, (5, 2, 3))
    for i in range(3):
        one = jax.tree.map(lambda z, i=i: z[i], variables["params"]["critic"])
        before = jax.tree.map(lambda z, i=i: z[:, i], carry)
        after, value = jax.device_get(apply({"params": one}, before, x, start, action))
        np.testing.assert_allclose(q[i], value, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(
            jax.tree.map(lambda z, i=i: z[:, :, i], carries), after, rtol=1e-5, atol=1e-6
        )
    assert len({round(float(x), 5) for x in q[:, 0, 0]}) == 3


@pytest.mark.parametrize(
    ("sizes", "layers", "encoder", "after"),
    [
        ((), 1, [], []),
        ((8,), 1, [], [8]),
        ((8, 6), 1, [8], [6]),
        ((8, 6), 0, [], [8, 6]),
        ((8, 6, 5), 1, [8], [6, 5]),
        ((8, 6, 5), 2, [8, 6], [5]),
        ((8, 6, 5), 3, [8, 6], [5]),
    ],
)
def test_encoder_layers_precede_the_torso(sizes, layers, encoder, after):
    config = prl.RecurrentSACConfig(hidden_sizes=sizes, encoder_layers=layers, memory_size=4)
    q_config = prl.RecurrentDQNConfig(hidden_sizes=sizes, encoder_layers=layers, memory_size=4)
    space, start = spaces.Box(-1, 1, (3,)), np.zeros((1, 2), bool)
    actor = networks.recurrent_actor(config, space, 1)
    critics = networks.recurrent_critics(config, space)
    q_network = networks.recurrent_q_network(q_config, space, 2, 1)
    categorical = distributions.default(envs.bind("CartPole-v1"))
    actor_critic = networks.recurrent_actor_critic(config, space, categorical)
    x, action = np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)
    for model, more, names, added in (
        (actor, (), ("torso",), 0),
        (critics, (action,), ("mlp",), 1),
        (q_network, (), ("MLP_0",), 0),
        (actor_critic, (), ("actor_torso", "critic_torso"), 0),
    ):
        init = partial(model.init, jax.random.key(0), model.initial_carry(2), x, start, *more)
        params = jax.eval_shape(init)["params"]
        params = params.get("critic", params)
        assert widths(params.get("encoder", {})) == encoder
        inner = 4 + (encoder or [3])[-1] + added
        for name in names:
            stream = params["stream"][name] if after else {}
            assert widths(stream) == after
            assert not after or kernels(stream)[0].shape[-2] == inner


def kernels(params):
    """Weights of dense layers, in their order."""
    found = jax.tree_util.tree_leaves_with_path(params)
    return [x for path, x in found if "kernel" in jax.tree_util.keystr(path)]


def widths(params):
    return [x.shape[-1] for x in kernels(params)]


# runs


@pytest.mark.parametrize("algorithm", quick(("recurrent_dqn", "recurrent_sac"), "recurrent_dqn"))
def test_stored_carries_are_those_that_acted(algorithm):
    """From a stored carry, the actor's steps lead to the carry stored with the next rollout."""
    env = "Pendulum-v1" if algorithm == "recurrent_sac" else Counter()
    config = small(
        algorithm, env=env, learning_rate=0.0, cell="lstm", wrappers=(), burn_in=0, rollout_length=4
    )
    state, _ = jax.jit(prl.train)(jax.random.key(0), config)
    env, agent, replay = prl.build(config)
    storage = memory.sequence_storage(off_policy.replay_storage(config, env), 4)

    @jax.jit
    def drawn(state):
        """A sequence, and the carry stored with the rollout after its first one."""
        draws = replay.draw(jax.random.key(1), state.memory, state.step, 1)
        sample = replay.sample(state.memory, jax.tree.map(lambda x: x[0], draws))
        index = sample.index._replace(time=sample.index.time + config.rollout_length)
        following = storage.read(state.memory, state.step, index)
        return sample.transition, following.transition.extras.carry

    transition, following = jax.device_get(drawn(state))
    initial, acting = jax.device_get(agent.init_carry(config.batch_size)), jax.jit(agent.act)
    carry = jax.tree.map(lambda x: x[0], transition.extras.carry)
    carry = (carry, initial[1]) if algorithm == "recurrent_sac" else carry
    for t in range(config.rollout_length):
        _, _, carry = acting(jax.random.key(0), state.agent, transition.obs[t], state.step, carry)
        ended = transition.last[t]
        carry = jax.tree.map(
            lambda x, y, ended=ended: np.where(ended.reshape(-1, *(1,) * (y.ndim - 1)), x, y),
            initial,
            carry,
        )
    acted = carry[0] if algorithm == "recurrent_sac" else carry
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[0], following), acted, rtol=1e-4, atol=1e-5
    )
    assert transition.last[:4].any() or algorithm == "recurrent_sac"


class Signal(Recall):
    """`Recall` with an action in [-1, 1]: its sign counts."""

    def __init__(self):
        super().__init__()
        self.reward = lambda sign, time, action: (time == 2) * sign * jnp.sign(action)
        self._space = CONTINUOUS


LEARNING = {
    "recurrent_dqn": {
        "cell": "gru", "epsilon_fraction": 0.5, "total_steps": 6_000, "num_updates": 3,
        "learning_rate": 1e-2,
    },
    "r2d2": {"cell": "lstm", "burn_in": 2, "epsilon_fraction": 0.5},
    "recurrent_sac": {"cell": "min_gru", "env": Signal(), "alpha": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("algorithm", quick(ALGORITHMS, "recurrent_dqn"))
def test_what_was_seen_two_steps_before_is_remembered(algorithm):
    config = prl.default_config(algorithm).replace(**{
        "env": Recall(), "num_envs": 8, "rollout_length": 3, "sequence_length": 6,
        "num_updates": 6, "total_steps": 12_000, "warmup_steps": 480, "capacity": 4_800,
        "hidden_sizes": (16, 16), "memory_size": 16, "learning_rate": 3e-3, "gamma": 0.9,
        "burn_in": 0, "target_period": 20 if algorithm != "recurrent_sac" else 1,
        **LEARNING[algorithm],
    })  # fmt: skip
    state, _ = jax.jit(prl.train)(jax.random.key(0), config)
    evaluate = partial(prl.evaluate, max_steps=3)
    returns = jax.jit(evaluate, static_argnums=3)(jax.random.key(1), config, state, 256)
    assert returns.mean() > 0.95


@SLOW
@pytest.mark.parametrize("algorithm", ("r2d2", "recurrent_sac"))
def test_runs_are_continued_bit_for_bit(algorithm):
    config = small(algorithm, cell="lstm")
    state = jax.jit(partial(prl.init, config=config))(jax.random.key(0))

    def run(iterations):
        return jax.jit(partial(prl.run, config=config, iterations=iterations))

    def arrays(state):
        return state._replace(key=jax.random.key_data(state.key))

    whole, metrics = run(4)(state)
    half = run(2)
    chex.assert_trees_all_equal(arrays(half(half(state)[0])[0]), arrays(whole))
    chex.assert_tree_all_finite(metrics)
    assert all(abs(x).max() > 0 for x in jax.tree.leaves(whole.env.carry))


@pytest.mark.parametrize("algorithm", quick(("recurrent_dqn", "r2d2"), "recurrent_dqn"))
def test_seeds_are_independent_and_are_continued_bit_for_bit(algorithm):
    """Vmapped over seeds, also in parts; with another second seed, the first is the same."""
    config = small(algorithm, hidden_sizes=(8,))
    keys = jax.random.split(jax.random.key(0), 2)
    axes = prl.seed_axes(jax.eval_shape(prl.init, keys[0], config))
    init = jax.jit(jax.vmap(partial(prl.init, config=config), out_axes=axes))

    def run(iterations):
        step = partial(prl.run, config=config, iterations=iterations)
        return jax.jit(jax.vmap(step, (axes,), (axes, 0)))

    def arrays(state):
        return state._replace(key=jax.random.key_data(state.key))

    all_at_once, half, state = run(4), run(2), init(keys)
    whole, _ = all_at_once(state)
    chex.assert_trees_all_equal(arrays(half(half(state)[0])[0]), arrays(whole))
    other, _ = all_at_once(init(jnp.stack([keys[0], jax.random.key(9)])))
    chex.assert_trees_all_equal(*[prl.seed_state(arrays(x), 0) for x in (whole, other)])
    carry, changed = (
        np.asarray((x.memory.storage if algorithm == "r2d2" else x.memory).carry)
        for x in (whole, other)
    )
    assert (carry[0] != carry[1]).any() and (carry[1] != changed[1]).any()


@pytest.mark.parametrize(
    ("algorithm", "env"),
    (
        ("recurrent_dqn", "FrozenLake-misc"),
        ("r2d2", "Breakout-MinAtar"),
        pytest.param("recurrent_dqn", "Breakout-MinAtar", marks=SLOW),
        pytest.param("r2d2", "FrozenLake-misc", marks=SLOW),
    ),
)
def test_images_and_indices_have_networks(algorithm, env):
    config = small(algorithm, env=env, wrappers=())
    state, metrics = jax.eval_shape(prl.make_train(config), jax.random.key(0))
    assert metrics["loss"].shape == (config.iterations,)
    carry = state.memory.storage.carry if algorithm == "r2d2" else state.memory.carry
    rows = config.capacity // config.steps_per_iteration
    assert carry.shape == (rows, config.num_envs, 8)  # one of each rollout, not of each step


def test_wrappers_scale_what_is_replayed():
    """Updates get scaled sequences; memories hold, and carries are, what they were."""
    wrappers = (prl.normalize.observations, prl.normalize.rewards)
    env = Probe(lambda sign, time, action: 50.0 * time, horizon=6)
    config = small("recurrent_dqn", env=env, wrappers=wrappers, normalization_limit=0.7)
    state, metrics = jax.jit(prl.train)(jax.random.key(0), config)
    chex.assert_tree_all_finite(metrics)
    env, agent, replay = prl.build(config.replace(wrappers=()))
    agent = agent._replace(update=lambda key, state, sample, count: (state, sample, {}))
    for wrapper in wrappers:
        agent = wrapper(config, env, agent)

    @jax.jit
    def drawn_and_scaled(state):
        draws = replay.draw(jax.random.key(1), state.memory, state.step, 1)
        sample = replay.sample(state.memory, jax.tree.map(lambda x: x[0], draws))
        _, scaled, _ = agent.update(jax.random.key(2), state.agent, sample, jnp.int32(0))
        return sample, scaled

    sample, found = jax.device_get(drawn_and_scaled(state))
    rewards, observations = state.agent, state.agent.agent
    mean, over = observations.used.mean.value, prl.normalize.deviation(observations.used)

    def normal(obs):
        return np.clip((obs - mean) / over, -0.7, 0.7)

    raw = sample.transition
    reward = raw.reward / prl.normalize.deviation(rewards.used)
    assert (reward > 0.7).any() and (reward < 0.7).any()
    expected = raw._replace(
        obs=normal(raw.obs), next_obs=normal(raw.next_obs), reward=np.minimum(reward, 0.7)
    )
    chex.assert_trees_all_close(found, sample._replace(transition=expected), rtol=1e-4, atol=1e-5)


# configurations


@pytest.mark.parametrize(
    ("algorithm", "changes", "complaint"),
    (
        ("r2d2", {"burn_in": 8}, "burn_in is 8, but must be less than sequence_length = 8"),
        ("recurrent_dqn", {"sequence_length": 6}, "must be a multiple of rollout_length = 4"),
        ("recurrent_sac", {"sequence_length": 36}, "capacity is 96, but must be at least"),
        ("recurrent_dqn", {"warmup_steps": 12}, "warmup_steps is 12, but must be at least"),
        ("recurrent_dqn", {"capacity": 90}, "capacity is 90, but must be a multiple of num_envs"),
        ("r2d2", {"n_step": 5}, "n_step is 5, but must be at most the 4 steps of a sequence"),
        ("recurrent_dqn", {"n_step": 0}, "n_step is 0, but must be at least 1"),
        ("r2d2", {"priority_of_maximum": 2.0}, "must be between 0 and 1"),
        ("recurrent_dqn", {"env": "Pendulum-v1"}, "DQN needs discrete actions"),
        ("recurrent_sac", {"env": "CartPole-v1"}, "has discrete ones: use recurrent_dqn"),
    ),
)
def test_invalid_fields_get_one_line(algorithm, changes, complaint):
    with pytest.raises(ConfigError, match=complaint) as error:
        prl.make_train(small(algorithm, **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_datasets_have_no_carries(algorithm):
    config = small(algorithm)
    rollout = jax.eval_shape(prl.init, jax.random.key(0), config)
    with pytest.raises(ConfigError, match="a dataset of transitions does not have: use dqn or sac"):
        prl.validate(config.replace(dataset=rollout))


def test_the_default_of_recurrent_sac_can_be_trained():
    prl.make_train(prl.default_config("recurrent_sac"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_memory_of_single_transitions_is_refused(algorithm):
    wrong = partial(prl.agents.exported(algorithm), memory=off_policy.uniform_replay)
    config = small(algorithm).replace(algorithm=wrong)
    with pytest.raises(ConfigError, match=r"learn from sequences \[T, B\], but the memory samples"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


@pytest.mark.parametrize("algorithm", ("recurrent_dqn", "recurrent_sac"))
def test_transitions_of_several_steps_form_no_sequences(algorithm):
    def storage(config, env):
        return n_step(off_policy.replay_storage(config, env), 3, 0.9)

    config = small(algorithm)
    config = config.replace(algorithm=partial(config.algorithm, storage=storage))
    with pytest.raises(ConfigError, match="sequences have n steps of their own"):
        jax.eval_shape(prl.make_train(config), jax.random.key(0))


def test_there_are_no_values_of_single_observations():
    config = small("recurrent_dqn")
    state = jax.eval_shape(prl.init, jax.random.key(0), config)
    with pytest.raises(ConfigError, match="no q_values of single observations"):
        prl.q_values(config, state, jnp.zeros((1, 4)))


# hidden components of observations


def test_hidden_velocities_are_only_hidden():
    plain, hidden = (envs.bind(name) for name in ("CartPole-v1", "CartPole-positions"))
    keys = jax.random.split(jax.random.key(1), 2)
    one, other = (
        jax.jit(env.reset, static_argnums=1)(jax.random.key(0), 2) for env in (plain, hidden)
    )
    step_plain, step_hidden = jax.jit(plain.step), jax.jit(hidden.step)
    for _ in range(30):
        np.testing.assert_array_equal(other.obs, one.obs[:, [0, 2]])
        action = jnp.zeros(2, jnp.int32)
        one, before, _ = step_plain(keys, one, action)
        other, after, _ = step_hidden(keys, other, action)
        np.testing.assert_array_equal(after.next_obs, before.next_obs[:, [0, 2]])
        for field in ("reward", "discount", "last"):
            np.testing.assert_array_equal(getattr(before, field), getattr(after, field))
    assert hidden.observation_space.shape == (2,) and hidden.max_steps == plain.max_steps
    assert envs.bind("Pendulum-positions").observation_space.shape == (2,)


@pytest.mark.parametrize(
    ("env", "components", "complaint"),
    (
        ("CartPole-v1", (0, 4), r"components are \[0, 4\], but observations of CartPole-v1 are"),
        ("Breakout-MinAtar", (0,), "need vectors"),
        ("CartPol-v1", (0,), "no environment is called CartPol-v1"),
        ("CartPole-v1", 0, "components is 0, but must be a tuple of indices"),
        ("CartPole-v1", "02", "components is '02', but must be a tuple of indices"),
        ("CartPole-v1", (0.5,), "a component is 0.5, but must be a whole number"),
        ("CartPole-v1", (True,), "a component is True, but must be a whole number"),
    ),
)
def test_components_that_do_not_exist_get_one_line(env, components, complaint):
    with pytest.raises(ConfigError, match=complaint):
        prl.visible.visible(env, components)
