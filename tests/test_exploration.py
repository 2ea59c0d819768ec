"""Sampling from policies: no action of probability 0, and the distribution of repeated actions."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from purejaxrl_sac import exploration

A, EPSILON, STEPS = 4, 0.4, 3


def adversarial(probabilities, count):
    """Numbers u at which the cumulative probability passes actions, and their neighbours."""
    cumulative = np.unique(probabilities.cumsum())
    edges = cumulative[:: max(1, len(cumulative) // count)] / cumulative[-1]
    near = [np.nextafter(edges, np.float32(to)) for to in (0, 1)]
    ends = np.float32([0, np.nextafter(np.float32(1), np.float32(0))])
    u = np.unique(np.concatenate([edges, *near, ends]))
    return np.float32(u[(u >= 0) & (u < 1)])


@pytest.mark.parametrize(
    ("actions", "seeds", "count"), ((2, 3, 9), (7, 3, 9), (512, 4, 600), (65_536, 1, 64))
)
def test_actions_of_probability_zero_are_never_drawn(actions, seeds, count):
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        legal = rng.random(actions) < 0.2
        legal[actions // 2] = True
        q = np.where(legal, rng.standard_normal(actions, np.float32), -np.float32(np.inf))
        pi = np.asarray(jax.jit(exploration.boltzmann)(q, 0.5))
        u = adversarial(pi, count)
        policies = np.broadcast_to(pi, (len(u), actions))
        action = np.asarray(jax.jit(exploration.inverse_cdf)(policies, u))
        assert (pi[action] > 0).all()
        assert (np.diff(action) >= 0).all()  # u increases
        exact = np.asarray(pi, np.float64).cumsum()
        exact /= exact[-1]
        lower = np.concatenate([[0], exact])[action]
        assert (lower - 1e-5 <= u).all() and (u <= exact[action] + 1e-5).all()


@pytest.mark.parametrize("only", (0, 3, 511))
def test_a_certain_action_is_always_drawn(only):
    pi = np.float32(np.broadcast_to(np.arange(512) == only, (1_000, 512)))
    for sample in (exploration.sample, exploration.sample_temporally_extended):
        assert (jax.jit(sample)(jax.random.key(0), pi) == only).all()


def sequences(sample, key, best):
    """Actions [N, STEPS] of epsilon-greedy policies with a repeated key."""
    q = np.eye(A, dtype=np.float32)[list(best)]
    q[:, 3] = -np.inf  # the last action is illegal
    pi = np.asarray(jax.jit(exploration.epsilon_greedy)(q, EPSILON))
    several = [np.broadcast_to(p, (30_000, A)) for p in pi]
    return np.stack([jax.jit(sample)(key, p) for p in several], axis=1)


def test_repeated_noise_repeats_actions_of_epsilon_greedy():
    """Greedy throughout with probability 1 - epsilon, else one of three actions throughout."""
    best = (0, 2, 1)
    found = sequences(exploration.sample_temporally_extended, jax.random.key(0), best)
    kinds, counts = np.unique(found, axis=0, return_counts=True)
    expected = {best: 1 - EPSILON, **{(a,) * STEPS: EPSILON / 3 for a in range(3)}}
    assert {tuple(kind) for kind in kinds.tolist()} == set(expected)
    for kind, count in zip(kinds.tolist(), counts, strict=True):
        assert count / 30_000 == pytest.approx(expected[tuple(kind)], abs=0.012)
    independent = (found[1:] == found[:-1]).all(1).mean()
    assert independent == pytest.approx((1 - EPSILON) ** 2 + EPSILON**2 / 3, abs=0.015)


@pytest.mark.parametrize(
    "pi", ([0.1, 0.2, 0.7], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [0.4, 0.25, 0.35])
)
def test_temporally_extended_samples_have_their_probabilities(pi):
    many = np.broadcast_to(np.float32(pi), (40_000, 3))
    action = jax.jit(exploration.sample_temporally_extended)(jax.random.key(1), many)
    share = np.bincount(action, minlength=3) / 40_000
    np.testing.assert_allclose(share, pi, atol=0.01)
    assert (share[np.array(pi) == 0] == 0).all()


def test_noise_repeat_selects_the_sampler():
    once, twice = (SimpleNamespace(noise_repeat=n) for n in (1, 2))
    assert exploration.sampler(once) is exploration.sample
    assert exploration.sampler(twice) is exploration.sample_temporally_extended
