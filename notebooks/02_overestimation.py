# %% [markdown]
# # 2. Overestimation
#
# This chapter follows section 2.8 of the post "From Q-learning to Soft Actor Critic": the bias of
# the maximum over noisy estimates, Double Q-learning, and Double DQN. As in its formula, $Q'$ selects and
# $Q$ evaluates (the sentences below the formula exchange the two); in deep networks $\theta$ selects and $\theta^-$ evaluates.

# %%
# %matplotlib inline
import os
import time
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import purejaxrl_sac as prl
from purejaxrl_sac import exploration, losses, mdp
from purejaxrl_sac.envs.tabular import Tabular
from purejaxrl_sac.experiment.pictures.plot import COLORS, draw_curve
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm, stratified_interval
from purejaxrl_sac.mdp import dynamic_programming as dp

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
DRAWS, MANY, EPISODES = (2_000, 200, 50) if SHORT else (100_000, 10_000, 300)
SEEDS, STEPS, POINTS = (2, 1_600, 2) if SHORT else (20, 16_000, 25)

# %% [markdown]
# ## The maximum of noisy estimates (post, 2.8.1)
#
# Let $m$ actions have the value 0, and their estimates independent errors of mean 0. The mean of the
# largest estimate is positive, because the maximum selects the largest error. For errors that are
# uniform on $[-1, 1]$ it is $(m - 1) / (m + 1)$.
#
# The remedy (2.8.2) uses two independent estimates: $Q'$ selects an action and $Q$ evaluates it,
# $Q(\arg\max_a Q'(a))$. The error of the evaluation is then independent of the selection.


# %%
def one_and_two(key, m):
    """max_a Q(a) and Q(argmax_a Q'(a)), each with DRAWS sets of errors."""
    q, other = jax.random.uniform(key, (2, DRAWS, m), minval=-1, maxval=1)
    return q.max(-1), losses.select_action(q, other.argmax(-1))


m = np.array([1, 2, 3, 5, 10, 20, 50, 100])
found = [[x.mean() for x in one_and_two(jax.random.key(0), int(n))] for n in m]
single, double = np.transpose(found)

figure, axes = plt.subplots(figsize=(6, 3.2), dpi=110, layout="constrained")
axes.plot(m, (m - 1) / (m + 1), color="black", linewidth=1, label=r"exact, $(m - 1) / (m + 1)$")
axes.plot(m, single, "o", color=COLORS[1], label=r"$\max_a Q(a)$")
axes.plot(m, double, "s", color=COLORS[0], label=r"$Q(\arg\max_a Q'(a))$")
axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
axes.set(xscale="log", xlabel="actions m", ylabel=f"mean of {DRAWS:,}", title="true values are 0")
axes.legend(frameon=False)
plt.show()
print(f"10 actions: single {single[4]:.4f}, exact {9 / 11:.4f}, double {double[4]:+.4f}")

# %% [markdown]
# If the true values differ, the double estimate is biased downwards: $Q'$ sometimes selects a
# suboptimal action, whose value $Q$ estimates correctly. Underestimation is less harmful, because
# bootstrapping does not propagate it: actions with underestimated values are not selected.
#
# ## Ten thousand seeds of Sutton and Barto's Example 6.7
#
# From A, action right terminates with reward 0, left leads to B, where each of ten actions terminates
# with a reward of $\mathcal N(-0.1, 1)$. Left is the worse choice, but the largest of ten noisy values
# in B is positive for a long time. The optimum here is 5 % left, all of it exploration
# ($\epsilon = 0.1$).
#
# Double Q-learning keeps two tables and updates a random one. In the code the two algorithms are one
# function with different bootstraps. `next_q.q` is the table that is updated: it selects, so it is
# the $Q'$ of the formula, and `next_q.other`, which evaluates, is its $Q$:
#
# ```python
# q_learning        = partial(tabular, bootstrap=lambda config, next_q, batch: next_q.q.max(-1))
# double_q_learning = partial(tabular, tables=2, bootstrap=lambda config, next_q, batch:
#                             losses.select_action(next_q.other, next_q.q.argmax(-1)))
# ```


# %%
def went_left(key, config):
    """Whether each of EPISODES episodes went left: those are two steps long, not one."""
    _, metrics = prl.train(key, config)
    episode = jnp.cumsum(metrics["episodes"]) - 1  # index of the episode that ends in this step
    ended = jnp.where(metrics["episodes"] > 0, episode, EPISODES)
    return jnp.zeros(EPISODES).at[ended].set(metrics["lengths"] == 2, mode="drop")


figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=110, layout="constrained")
for algorithm, color in (("q_learning", COLORS[1]), ("double_q_learning", COLORS[0])):
    config = prl.default_config(algorithm).replace(
        env="maximization_bias", total_steps=2 * EPISODES, learning_rate=0.1, gamma=1.0,
        epsilon_start=0.1, epsilon_end=0.1,
    )  # fmt: skip
    share = jax.jit(lambda keys, c=config: jax.vmap(partial(went_left, config=c))(keys).mean(0))
    keys = jax.random.split(jax.random.key(1), MANY)
    program = share.lower(keys).compile()
    began = time.perf_counter()
    left = 100 * np.asarray(program(keys))
    seconds = time.perf_counter() - began
    axes.plot(np.arange(1, EPISODES + 1), left, color=color, label=algorithm.replace("_", " "))
    print(
        f"{algorithm:18} {MANY:,} seeds x {EPISODES} episodes in {seconds:.1f} s; most left"
        f" {left.max():.0f} % at episode {left.argmax() + 1}, in the last {left[-1]:.1f} %"
    )
axes.axhline(5, color="black", linestyle=":", linewidth=1, label="best possible")
axes.set(xlabel="episode", ylabel="% that go left", ylim=(0, 100), xlim=(1, EPISODES))
axes.set_title(f"the maximisation bias, {MANY:,} seeds", fontsize="medium")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## DQN and Double DQN (post, 2.8.3)
#
# $$y_{\text{DQN}} = r + \gamma \max_{a'} Q(s', a'; \theta^-), \qquad
# y_{\text{Double}} = r + \gamma\, Q(s', \arg\max_{a'} Q(s', a'; \theta); \theta^-).$$
#
# `double_dqn` is `partial(dqn, bootstrap=double)`. Estimates can be compared with true values on a
# random MDP of 20 states and 10 actions with noisy rewards, in which any policy can be evaluated
# exactly. `prl.train_with_eval` computes, during training and for each seed, the mean over states of
# the estimate $\max_a Q(s, a; \theta)$ and of the true value $V^\pi$ of its greedy policy.

# %%
GAMMA, STATES, ACTIONS = 0.9, 20, 10
noisy = mdp.garnet(jax.random.key(7), STATES, ACTIONS, branching=3)
noisy = noisy.replace(noise=jnp.full((STATES, ACTIONS), 3.0))  # rewards themselves are N(0, 1)
base = prl.default_config("dqn").replace(
    env=Tabular(noisy, name="noisy garnet", max_steps=50), total_steps=STEPS, num_envs=5,
    num_updates=5, capacity=2_000, batch_size=64, gamma=GAMMA, target_period=50, epsilon_end=0.1,
)  # fmt: skip
double = prl.default_config("double_dqn").algorithm


def believed_and_true(state, config):
    q = prl.q_values(config, state, jnp.arange(STATES))
    return q.max(-1).mean(), dp.policy_evaluation(noisy, GAMMA, exploration.greedy(q)).mean()


# %% tags=["picture"]
figure, axes = plt.subplots(figsize=(6.8, 4), dpi=100, layout="constrained")
keys = jax.random.split(jax.random.key(2), SEEDS)
bias = {}
for label, color, config in (
    ("DQN", COLORS[1], base),
    ("Double DQN", COLORS[0], base.replace(algorithm=double)),
):
    look = partial(
        prl.train_with_eval,
        config=config,
        measure=partial(believed_and_true, config=config),
        points=POINTS,
    )
    steps, (said, true) = jax.jit(jax.vmap(look, out_axes=(None, 0)))(keys)
    draw_curve(axes, steps, said, {"color": color}, f"{label} estimates")
    draw_curve(axes, steps, true, {"color": color, "linestyle": "--"}, f"{label} earns")
    tail = max(1, POINTS // 5)
    bias[label] = np.asarray(said - true)[:, -tail:].mean(1)
    low, high = bootstrap_interval(bias[label])
    print(f"{label:10} overestimates by {iqm(bias[label]):.2f} [{low:.2f}, {high:.2f}], last fifth")
low, high = stratified_interval(list(bias.values()), lambda dqn, double: iqm(dqn) - iqm(double))
print(
    f"the difference of the two: {iqm(bias['DQN']) - iqm(bias['Double DQN']):.2f} [{low:.2f}, {high:.2f}]"
)
best = float(dp.value_iteration(noisy, GAMMA).max(-1).mean())
axes.axhline(best, color="black", linewidth=0.8, label="best possible")
axes.set(xlabel="environment steps", ylabel="value, mean over states")
axes.set_ylim(best - 9, best + 2)
axes.set_title("estimates and truth: IQM, 95 % interval", fontsize="medium")
axes.legend(frameon=False, fontsize="small")
plt.show()

# %% [markdown]
# Both overestimate. DQN's estimates reach the optimal value, which its policies never do; those of
# Double DQN are lower, clearly so in the first half of the run. In the last fifth the remaining
# difference is small, with an interval that includes 0, and the true values of both do not differ
# significantly at any time. Double DQN is not unbiased: its two networks are the same network at
# different times, so that their errors are not independent, unlike those of two tables. (For twice as
# many steps and more seeds, see `scripts/overestimation_dqn.py`.)
#
# ## Exercise
#
# How does the overestimation depend on the number of actions? Set `ACTIONS` to 2, 5, 10 and 20, plot
# the bias of both algorithms and compare it with the first figure of this chapter. Then remove the
# noise: how much of the bias remains, and why?
#
# **What to read next:** ablations of the other parts of DQN:
# [03_dqn.ipynb](03_dqn.ipynb). SAC reduces the same bias with the minimum of two critics:
# [06_sac.ipynb](06_sac.ipynb). In the code: `purejaxrl_sac/agents/dqn.py`.
