# %% [markdown]
# # 1. Q-learning
#
# This chapter follows section 1 of the post "From Q-learning to Soft Actor Critic" and its
# notation: states $s \in \mathcal S$, actions $a \in \mathcal A$, $Q(s, a)$, discount $\gamma$,
# Bellman operator $\mathcal T$. One symbol differs: the learning rate, $\alpha$ in the post, is $\beta$
# here and in the code, because $\alpha$ is the temperature from the post's section 4 on.
#
# The chapter shows the contraction of the Bellman operator, the convergence of value iteration and
# Q-learning (with 256 seeds) to $Q^*$, the effect of learning rates, and the resulting policy.

# %%
# %matplotlib inline
import os
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import purejaxrl_sac as prl
from purejaxrl_sac import exploration, mdp
from purejaxrl_sac.experiment.pictures import value_maps
from purejaxrl_sac.experiment.pictures.plot import COLORS, draw_curve
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.mdp import dynamic_programming as dp

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
SEEDS, STEPS = (4, 4_000) if SHORT else (256, 100_000)
PAIRS, EPISODES = (50, 1_000) if SHORT else (2_000, 100_000)
GAMMA = 0.9

# %% [markdown]
# ## Action values (post, 1.1)
#
# A finite MDP consists of a few arrays: $P(s' \mid s, a)$, the rewards, the initial distribution and
# the terminal states. FrozenLake has 16 states and 4 actions: reaching G gives a reward of 1, the
# holes H terminate. Moves succeed with probability 1/3 and otherwise slip to either side.
#
# For a policy $\pi$, $V^\pi$ and $Q^\pi$ are the expected discounted return. As
# $V^\pi = r_\pi + \gamma P_\pi V^\pi$ is linear, a small MDP can be solved exactly, and
# $V^\pi(s) = \mathbb E_{a \sim \pi}[Q^\pi(s, a)]$:

# %%
lake = mdp.frozen_lake()
pi = dp.uniform_policy(lake)
v = dp.policy_evaluation(lake, GAMMA, pi)
q = dp.backup(lake, GAMMA, v)

print("P", lake.P.shape, " r", lake.r.shape)
print(f"V of the random policy at the start, solved:  {v[0]:.6f}")
print(f"the mean of its Q(s, .) there:                {(pi * q).sum(-1)[0]:.6f}")

# %% [markdown]
# An expectation can be estimated from samples. `prl.rollout_episodes` simulates many episodes in
# parallel, here with random actions, and returns every step of them.

# %%
config = prl.default_config("q_learning").replace(env="frozen_lake", gamma=GAMMA)


def at_random(config, state):
    return lambda key, obs: prl.envs.bind(config.env).random_action(key, len(obs))


played, running = prl.rollout_episodes(jax.random.key(0), config, None, EPISODES, policy=at_random)
returns = GAMMA ** jnp.arange(len(running)) @ (played.reward * running)
error = returns.std() / np.sqrt(EPISODES)
print(f"mean discounted return of {EPISODES:,} episodes: {returns.mean():.6f} +- {error:.6f}")

# %% [markdown]
# ## The Bellman operator contracts (post, 1.3)
#
# $$\mathcal T Q(s, a) = \mathbb E_{s'}\left[r(s, a) + \gamma \max_{a'} Q(s', a')\right],\qquad
# \|\mathcal T Q_1 - \mathcal T Q_2\|_\infty \le \gamma\, \|Q_1 - Q_2\|_\infty.$$
#
# This is the function `dp.optimality`. Left: both norms for random pairs $Q_1, Q_2$ on random MDPs;
# half of the pairs differ by a constant, which is the worst case. Up to rounding, no point is above
# the line of slope $\gamma$. Right: as a consequence, repeated application of $\mathcal T$ converges to
# its unique fixed point $Q^*$ from any initial values: each application multiplies the error by at most
# $\gamma$.


# %%
def contraction(key):
    """||Q1 - Q2|| and ||T Q1 - T Q2|| for a random MDP and a random pair."""
    keys = jax.random.split(key, 4)
    random_mdp = mdp.garnet(keys[0])
    q1 = 10 * jax.random.normal(keys[1], random_mdp.legal.shape)
    far = jax.random.uniform(keys[2], minval=0.1, maxval=10)
    apart = jnp.where(jax.random.bernoulli(keys[3]), 1.0, jax.random.normal(keys[2], q1.shape))
    q2 = q1 + far * apart
    after = dp.optimality(random_mdp, GAMMA, q1) - dp.optimality(random_mdp, GAMMA, q2)
    return jnp.abs(q1 - q2).max(), jnp.abs(after).max()


before, after = jax.jit(jax.vmap(contraction))(jax.random.split(jax.random.key(1), PAIRS))
print(f"largest ratio of {PAIRS:,}: {(after / before).max():.6f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), dpi=110, layout="constrained")
left.plot(before, after, ".", color=COLORS[0], markersize=3, alpha=0.4)
ends = np.array([0, before.max()])
left.plot(ends, GAMMA * ends, color="black", linewidth=1, label=r"$\gamma\,\|Q_1 - Q_2\|$")
left.set(xlabel=r"$\|Q_1 - Q_2\|_\infty$", ylabel=r"$\|TQ_1 - TQ_2\|_\infty$", title="contraction")
left.legend(frameon=False)
for color, gamma in zip(COLORS, (0.8, 0.9, 0.99), strict=False):
    exact, q, gaps = dp.value_iteration(lake, gamma), jnp.zeros((16, 4)), []
    for _ in range(80):
        gaps.append(float(jnp.abs(q - exact).max()))
        q = dp.optimality(lake, gamma, q)
    right.semilogy(gaps, color=color, label=rf"$\gamma$ = {gamma}")
    right.semilogy(gaps[0] * gamma ** np.arange(80), ":", color=color)
right.set(xlabel="applications of T", ylabel=r"$\|Q - Q^*\|_\infty$", ylim=(1e-6, 2))
right.set_title("value iteration on FrozenLake (dotted: the guarantee)", fontsize="medium")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# On FrozenLake value iteration converges faster than the bound: a slip into a hole terminates the
# episode, which contracts in addition. The bound holds for the worst MDP.
#
# ## Q-learning: the same update from one sample (post, 1.2.2 and 1.4)
#
# Without $P$ the expectation is unknown. Q-learning estimates it from one transition
# $(s, a, r, s')$ and takes a step towards the estimate:
#
# $$Q(s, a) \leftarrow Q(s, a) + \beta \left[r + \gamma \max_{a'} Q(s', a') - Q(s, a)\right].$$
#
# In this library the algorithm is one expression; `next_q` contains the values at $s'$:
#
# ```python
# q_learning = partial(tabular, bootstrap=lambda config, next_q, batch: next_q.q.max(-1))
# ```
#
# The post's conditions for convergence (1.5) are that every pair is visited infinitely often, and
# that $\sum_t \beta_t = \infty$, $\sum_t \beta_t^2 < \infty$. Here $\beta = \beta_0 / n(s, a)^\omega$,
# where $n$ counts visits to the pair: $\omega = 0$ is a constant learning rate (with $\beta_0 = 0.1$), and
# $1/2 < \omega \le 1$ satisfies both conditions (with $\beta_0 = 1$). All actions are random: Q-learning is off-policy, so
# its fixed point does not depend on the behaviour policy, as long as that explores all actions.
#
# `prl.train_with_eval` trains and evaluates a measure of the state at regular intervals; with `jit`
# and `vmap` it trains 256 seeds in one program.

# %%
q_star = dp.value_iteration(lake, GAMMA)
scale = float(q_star.max())
random_actions = {"epsilon_start": 1.0, "epsilon_end": 1.0}
base = prl.default_config("q_learning").replace(
    env="frozen_lake", total_steps=STEPS, num_envs=8, gamma=GAMMA, **random_actions
)
schedules = {
    "constant, β = 0.1": base.replace(learning_rate=0.1, omega=0.0),
    "ω = 0.6": base.replace(learning_rate=1.0, omega=0.6),
    "ω = 0.8": base.replace(learning_rate=1.0, omega=0.8),
    "ω = 1": base.replace(learning_rate=1.0, omega=1.0),
}


def error_of(state, config):
    """||Q - Q*||, in units of the largest value."""
    q = prl.q_values(config, state, jnp.arange(16))
    return jnp.where(lake.terminal[:, None], 0, jnp.abs(q - q_star)).max() / scale


def watched(config, measure, points=30):
    """Environment steps [points + 1], and measurements of each seed, [SEEDS, points + 1]."""
    look = partial(
        prl.train_with_eval, config=config, measure=partial(measure, config=config), points=points
    )
    keys = jax.random.split(jax.random.key(2), SEEDS)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(look, out_axes=(None, 0)))(keys))


figure, axes = plt.subplots(figsize=(6.8, 4), dpi=110, layout="constrained")
for color, (label, config) in zip(COLORS, schedules.items(), strict=False):
    steps, errors = watched(config, error_of)
    draw_curve(axes, steps[1:], errors[:, 1:], {"color": color}, label)
    low, high = bootstrap_interval(errors[:, -1])
    print(f"{label:24} error at the end {iqm(errors[:, -1]):.3f} [{low:.3f}, {high:.3f}]")
axes.set(xscale="log", yscale="log", xlabel="environment steps")
axes.set_ylabel(r"$\|Q - Q^*\|_\infty \;/\; \max Q^*$")
axes.set_title("Q-learning on FrozenLake: IQM and its 95 % interval")
axes.legend(frameon=False)
axes.grid(alpha=0.2, which="both")
plt.show()

# %% [markdown]
# With a constant learning rate the error decreases to the noise level of the most recent targets.
# With decaying ones it continues to decrease. They must not decay too fast: $\omega = 1$ averages all
# targets, including the first and least accurate ones, and has a larger final error than
# $\omega = 0.8$.
#
# ## The policy (post, 1.2.3 and 1.4)
#
# To earn rewards while exploring, the agent acts $\epsilon$-greedily, with $\epsilon$ decaying over
# the run. The true value of its greedy policy $\arg\max_a Q(s, a)$ can be computed exactly, without
# simulation. It increases long before the values are accurate, because only their order matters
# (generalised policy iteration).

# %%
learner = prl.preset("q_learning", "frozen_lake").replace(
    total_steps=STEPS, num_envs=8, gamma=GAMMA
)


def both(state, config):
    q = prl.q_values(config, state, jnp.arange(16))
    earned = dp.policy_evaluation(lake, GAMMA, exploration.greedy(q))[0]
    return {"error": error_of(state, config), "earned": earned, "q": q}


steps, seen = watched(learner, both)
earned = seen["earned"] / q_star[0].max()
optimal = (earned > 0.999).mean(0)

figure, axes = plt.subplots(figsize=(6.8, 3.4), dpi=110, layout="constrained")
draw_curve(
    axes, steps, earned, {"color": COLORS[2]}, r"$V^\pi(s_0) / V^*(s_0)$, $\pi$ greedy in $Q$"
)
draw_curve(axes, steps, seen["error"], {"color": COLORS[1]}, r"$\|Q - Q^*\|_\infty / \max Q^*$")
axes.plot(steps, optimal, "--", color=COLORS[0], label="share of seeds whose policy is optimal")
axes.set(xlabel="environment steps", ylim=(-0.02, 1.05), xlim=(0, None))
axes.set_title("policies and values while learning: IQM, 95 % interval", fontsize="medium")
axes.legend(frameon=False, loc=(0.4, 0.15))
axes.grid(alpha=0.2)
plt.show()
for moment in (5, 10, 20, 30):
    print(
        f"{steps[moment]:>7,} steps: policies earn {iqm(earned)[moment]:.3f} of the best,"
        f" {optimal[moment]:.0%} are optimal; error of the values {iqm(seen['error'])[moment]:.3f}"
    )

# %% tags=["picture"]
figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.8), dpi=100, layout="constrained")
value_maps.draw_value_map(
    panels[0], lake, seen["q"][0, -1], "Q-learning, one seed: max Q(s, a), greedy actions"
)
image = value_maps.draw_value_map(panels[1], lake, q_star, "exact: V*(s), every optimal action")
figure.colorbar(image, ax=panels, label="V(s)", shrink=0.8)
plt.show()

# %% [markdown]
# The maps agree except where two actions are equally good, of which the learned policy has one.
# In the cell below the start, the safest way past the hole on slippery ice is to move against the
# wall.
#
# The convergence of Q-learning follows from two facts: $\mathcal T$ is a contraction, and its samples
# are unbiased. The next chapter shows where the targets of Q-learning are biased.
#
# ## Exercise
#
# SARSA learns the values of its behaviour policy, including exploration. Take
# `prl.default_config("sarsa")` on `cliff_walking` and `prl.preset("q_learning", "cliff_walking")`,
# draw both with `value_maps.value_map(mdp.cliff_walking(), ...)`, and evaluate both greedy policies with
# `dp.policy_evaluation` (`gamma=1`). Which path does each take, and why?
#
# **What to read next:** the maximum over noisy values in the target causes a bias:
# [02_overestimation.ipynb](02_overestimation.ipynb). In the code: `purejaxrl_sac/agents/q_learning.py`
# and `purejaxrl_sac/mdp/dynamic_programming.py`.
