# %% [markdown]
# # 3. DQN from its parts
#
# This chapter follows section 2 of the post "From Q-learning to Soft Actor Critic": the Q-network
# $Q(s, a; \theta)$, the replay memory $\mathcal D$, the target network $\theta^-$ (2.3), and the training loop
# of 2.6. Chapter 2 was about the maximum in its target; this one takes the other parts away, one at
# a time, and looks at what breaks.

# %%
# %matplotlib inline
import os
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import purejaxrl_sac as prl
from purejaxrl_sac import heads, networks
from purejaxrl_sac.agents import dqn
from purejaxrl_sac.experiment.plot import COLORS, curves, draw_curve, series
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.memory import minibatches

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
SEEDS, STEPS, POINTS, EPISODES = (2, 2_000, 3, 4) if SHORT else (8, 25_000, 25, 32)
GAME_SEEDS, GAME_STEPS = (1, 400) if SHORT else (2, 60_000)

# %% [markdown]
# ## The loss (post, 2.4 and 2.6)
#
# $$y = r + \gamma \max_{a'} Q(s', a'; \theta^-), \qquad \mathcal L(\theta) = \mathbb E_{\mathcal D}\left[(Q(s, a; \theta) - y)^2\right]$$
#
# In the library `dqn` takes its parts as functions, and so leaving one out is passing another:
#
# ```python
# def dqn(config, *, network=networks.q_network, head=heads.scalar, bootstrap=maximum,
#         reward=plain_reward, explore=epsilon_greedy, storage=replay_storage, memory=uniform_replay)
# ```
#
# CartPole: a reward of 1 for every step that the pole stays up, at most 500. With $\gamma = 0.99$ no
# state is worth more than $1 / (1 - \gamma) = 100$, which makes a diverging Q easy to see.

# %%
base = prl.preset("dqn", "CartPole-v1").replace(
    total_steps=STEPS, num_updates=5, batch_size=64, capacity=STEPS, learning_rate=1e-3,
    learning_rate_end=1.0, epsilon_fraction=0.2,
)  # fmt: skip


def latest_only(config, storage):
    """No memory: every update gets the ten transitions just made."""
    return minibatches(config.num_updates, 1)


def limits_end_episodes(config, agent):
    """A time limit taken for a termination: nothing is bootstrapped after it."""

    def observe(state, rollout):
        state, rollout = agent.observe(state, rollout)
        return state, rollout._replace(discount=1.0 - rollout.last)

    return agent._replace(observe=observe)


variants = {
    "DQN": base,
    "no replay": base.replace(algorithm=partial(dqn.dqn, memory=latest_only)),
    "no target network": base.replace(tau=1.0, target_period=1),
    "time limit = termination": base.replace(wrappers=(limits_end_episodes,)),
    "clipped loss": base.replace(huber_delta=1.0),
}

# %% [markdown]
# Without a target network, $\theta^-$ is $\theta$: all of it taken over (`tau=1`) after every update. The clipped
# loss is the Huber loss with $\delta = 1$, as in the paper of 2015. Two details of what is usual are
# among the things tested here: this library bootstraps through time limits and uses the squared
# loss.

# %%
keys = jax.random.split(jax.random.key(0), SEEDS)
trained, scores = {}, {}
for name, config in variants.items():
    states, metrics = jax.jit(jax.vmap(prl.make_train(config)))(keys)
    play = jax.vmap(lambda s, c=config: prl.evaluate(jax.random.key(1), c, s, EPISODES))
    scores[name] = np.asarray(jax.jit(play)(states)).mean(1)
    trained[name] = {m: np.asarray(metrics[m]) for m in ("episodes", "returns", "q")}
    low, high = bootstrap_interval(scores[name])
    print(
        f"{name:25} greedy return, IQM {iqm(scores[name]):5.0f} [{low:.0f}, {high:.0f}];"
        f" Q at the end, IQM {iqm(trained[name]['q'][:, -20:].mean(1)):.4g}"
    )

# %% tags=["picture"]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), dpi=100, layout="constrained")
for color, (name, config) in zip(COLORS, variants.items(), strict=False):
    style = {"color": color}
    draw_curve(left, *series(trained[name], config, "returns", POINTS), style, name)
    steps, q = series(trained[name], config, "q", POINTS)
    draw_curve(right, steps, np.maximum(q, 0.1), style, name)
right.axhline(100, color="black", linestyle=":", linewidth=1)
right.set(yscale="log", title=r"mean $Q(s, a; \theta)$ of a batch (dotted: the most possible)")
left.set_title("return while training: IQM, 95 % interval")
left.legend(frameon=False, fontsize="small")
for axes in (left, right):
    axes.set_xlabel("environment steps")
    axes.grid(alpha=0.2)
plt.show()

# %% [markdown]
# ABLATIONS
#
# ## A short time limit
#
# At 500 steps the limit is farther away than $\gamma$ can see, so mistaking it for a termination costs
# little above. Let it be 20 steps. What the pole does after them is the same as ever, only nobody
# watches; a value that ends there is a value of another task.

# %%
CartPole = prl.envs.make("CartPole-v1")
soon = CartPole.default_params.replace(max_steps_in_episode=20)
limits = {
    "bootstrapped through": base.replace(env_params=soon),
    "taken for a termination": base.replace(env_params=soon, wrappers=(limits_end_episodes,)),
}
for name, config in limits.items():
    states, metrics = jax.jit(jax.vmap(prl.make_train(config)))(keys)
    play = jax.vmap(lambda s: prl.evaluate(jax.random.key(1), base, s, EPISODES))  # to 500 again
    returns = np.asarray(jax.jit(play)(states)).mean(1)
    low, high = bootstrap_interval(returns)
    q = np.asarray(metrics["q"])[:, -20:].mean(1)
    print(
        f"{name:24} Q {iqm(q):5.1f}; greedy return with up to 500 steps, IQM {iqm(returns):.0f}"
        f" [{low:.0f}, {high:.0f}]"
    )

# %% [markdown]
# LIMIT
#
# ## Images (post, 2.3.1)
#
# Where observations are images, the same `dqn` builds a CNN and stores every image once. Breakout of
# MinAtar is 10 x 10 cells with 4 channels: paddle, ball, trail and bricks.

# %%
game = prl.preset("dqn", "Breakout-MinAtar").replace(
    total_steps=GAME_STEPS, capacity=max(400, GAME_STEPS // 2), warmup_steps=200, learning_rate=5e-4,
)  # fmt: skip
game_keys = jax.random.split(jax.random.key(2), GAME_SEEDS)
states, metrics = jax.jit(jax.vmap(prl.make_train(game)))(game_keys)
steps, returns = series(metrics, game, "returns", min(POINTS, 12))
space = prl.envs.bind(game.env).observation_space
print(
    "observations",
    space.shape,
    "- convolutions (channels, size, stride)",
    networks.convolutions(space),
)
curves({"DQN with a CNN": (steps, returns)}, "return of training episodes", "Breakout-MinAtar")

# %% [markdown]
# GAME
#
# ## Rainbow, as one expression
#
# Every later improvement is one more part. With all of them it is Rainbow (Hessel et al. 2018), and
# each of its lines can be taken out again:

# %%
rainbow = partial(
    dqn.dqn,
    network=partial(dqn.dueling_network, dense=networks.NoisyDense),
    head=heads.categorical,
    bootstrap=dqn.double,
    explore=dqn.greedy,
    storage=dqn.n_step_storage,
    memory=dqn.prioritized_replay,
)
config = prl.preset("rainbow", "CartPole-v1").replace(
    algorithm=rainbow, total_steps=STEPS // 2, num_updates=2, batch_size=32, capacity=STEPS // 2
)
states, metrics = jax.jit(jax.vmap(prl.make_train(config)))(keys[:2])
play = jax.vmap(lambda s: prl.evaluate(jax.random.key(3), config, s, EPISODES))
print("Rainbow, two seeds, greedy return:", np.asarray(jax.jit(play)(states)).mean(1).round(1))
obs = jnp.zeros((1, 4))
print(
    "expected returns of an upright pole:", prl.q_values(config, prl.seed_state(states, 0), obs)[0]
)

# %% [markdown]
# RAINBOW
#
# ## Exercise
#
# Which part of Rainbow helps on CartPole? Take `per_dqn`, `n_step_dqn`, `dueling_dqn`, `noisy_dqn` and
# `c51` (`prl.preset(name, "CartPole-v1")`) for 25,000 steps each with 8 seeds, and compare them with
# `plot.comparison` from `purejaxrl_sac.experiment`.
#
# **What to read next:** a policy of its own, with a gradient of its own:
# [04_actor_critic.ipynb](04_actor_critic.ipynb). In the code: `purejaxrl_sac/agents/dqn.py` and
# `distributional.py`.
