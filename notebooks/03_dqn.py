# %% [markdown]
# # 3. DQN and its parts
#
# This chapter follows section 2 of the post "From Q-learning to Soft Actor Critic": the Q-network
# $Q(s, a; \theta)$, the replay memory $\mathcal D$, the target network $\theta^-$ (2.3), and the training loop
# of 2.6. Chapter 2 discussed the maximum in its target; this one removes the other parts, one at a
# time, and shows the effects.

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
from purejaxrl_sac.experiment.pictures.plot import COLORS, curves, draw_curve, series
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.memory import minibatches

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
SEEDS, STEPS, POINTS, EPISODES = (2, 2_000, 3, 4) if SHORT else (5, 22_000, 22, 32)
GAME_SEEDS, GAME_STEPS = (1, 400) if SHORT else (2, 16_000)

# %% [markdown]
# ## The loss (post, 2.4 and 2.6)
#
# $$y = r + \gamma \max_{a'} Q(s', a'; \theta^-), \qquad \mathcal L(\theta) = \mathbb E_{\mathcal D}\left[(Q(s, a; \theta) - y)^2\right]$$
#
# `dqn` takes its parts as functions, so an ablation passes a different part:
#
# ```python
# def dqn(config, env, *, network=networks.q_network, head=heads.scalar, bootstrap=maximum,
#         reward=plain_reward, explore=epsilon_greedy, loss=q_loss, optimizer=decaying_adam,
#         storage=replay_storage, memory=uniform_replay)
# ```
#
# CartPole gives a reward of 1 for every step that the pole stays up, for at most 500 steps. With
# $\gamma = 0.99$ no value exceeds $1 / (1 - \gamma) = 100$, which makes divergence easy to detect.

# %%
pole = prl.envs.make("CartPole-v1").default_params  # at most 500 steps
base = prl.preset("dqn", "CartPole-v1").replace(
    env_params=pole, total_steps=STEPS, num_updates=5, batch_size=64, capacity=STEPS,
    learning_rate=1e-3, learning_rate_end=1.0, tau=0.02, epsilon_fraction=0.2,
)  # fmt: skip


def latest_only(config, storage):
    """No replay: every update uses the latest transitions."""
    return minibatches(config.num_updates, 1)


def limits_end_episodes(config, env, agent):
    """Treat time limits as terminations: do not bootstrap at them."""

    def process_rollout(state, rollout):
        state, rollout = agent.process_rollout(state, rollout)
        return state, rollout._replace(discount=1.0 - rollout.last)

    return agent._replace(process_rollout=process_rollout)


soon = {"env_params": pole.replace(max_steps_in_episode=20)}  # for later
replay = {
    "DQN": base,
    "no target network": base.replace(tau=1.0, target_period=1),
    "clipped loss": base.replace(huber_delta=1.0),
    "bootstrapped through": base.replace(**soon),
}
no_replay = {"no replay": base.replace(algorithm=partial(dqn.dqn, memory=latest_only))}
ended = base.replace(wrappers=(limits_end_episodes,))
ended = {"time limit = termination": ended, "taken for a termination": ended.replace(**soon)}

# %% [markdown]
# Here $\theta^-$ is not a copy that is renewed every $K$ updates (2.3): after each update it moves by a
# fraction $\tau$ = 0.02 towards $\theta$ (post, 4.3.1). Without a target network, $\theta^-$ equals $\theta$: it is
# replaced (`tau=1`) after every update. The
# clipped loss is the Huber loss with $\delta = 1$, as in the paper of 2015. Two common choices that
# differ from this library are tested, too: the library bootstraps at time limits and uses the
# squared loss.
#
# Numbers that are not shapes are traced, so configurations that differ only in them can be stacked
# and trained as lanes of one program, with `vmap` over keys and configurations. Different functions
# require different programs, so the seven configurations need three.


# %%
def train(configs):
    """Trains SEEDS seeds of each; label -> metrics [SEEDS, iterations], greedy returns [SEEDS]."""
    stacked = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), SEEDS, 0), *configs.values())
    keys = jnp.concatenate(len(configs) * [jax.random.split(jax.random.key(0), SEEDS)])
    states, metrics = jax.jit(jax.vmap(prl.train))(keys, stacked)
    play = jax.vmap(lambda s: prl.evaluate(jax.random.key(1), base, s, EPISODES, max_steps=500))
    returns = np.asarray(jax.jit(play)(states)).mean(1)
    lanes = {name: slice(i * SEEDS, (i + 1) * SEEDS) for i, name in enumerate(configs)}
    kept = {m: np.asarray(metrics[m]) for m in ("episodes", "returns", "q")}
    return {
        name: ({m: values[lane] for m, values in kept.items()}, returns[lane])
        for name, lane in lanes.items()
    }


runs = train(replay) | train(no_replay) | train(ended)
parts = ("DQN", "no replay", "no target network", "time limit = termination", "clipped loss")


def report(name):
    metrics, returns = runs[name]
    low, high = bootstrap_interval(returns)
    q = iqm(metrics["q"][:, -20:].mean(1))
    print(f"{name:25} Q {q:9.4g}; greedy return, IQM {iqm(returns):4.0f} [{low:.0f}, {high:.0f}]")


for name in parts:
    report(name)

# %% tags=["picture"]
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), dpi=100, layout="constrained")
for color, name in zip(COLORS, parts, strict=False):
    style, (metrics, _) = {"color": color}, runs[name]
    draw_curve(left, *series(metrics, base, "returns", POINTS), style, name)
    steps, q = series(metrics, base, "q", POINTS)
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
# The values (right) show the effects first. Those of DQN converge to a level below 100, as they
# should. Without a target network they rise at once, decrease, and then exceed the possible maximum.
# With the clipped loss they exceed 100 and continue to grow: terminations are rare, and their clipped
# gradients are dominated by those of the maximum. This policy degrades, too. Without replay the
# values increase slowly, and returns fluctuate.
#
# The returns (left) after 22,000 steps do not show that DQN needs replay or a target network: without
# replay the interval is wide, and without a target network the returns are even higher here, although
# the values are impossible. A time limit of 500 matters little, because few episodes are that long: the
# curve of "time limit = termination" coincides with that of DQN.
#
# ## A short time limit
#
# Therefore, set the limit to 20 steps. It does not change the dynamics of the pole; a value that ends
# at the limit belongs to a different task. Both variants were trained above and are evaluated with the
# limit of 500.

# %%
for name in ("bootstrapped through", "taken for a termination"):
    report(name)

# %% [markdown]
# With bootstrapping at the limit, values are close to the true 100, although too high; with termination
# they are those of episodes of twenty steps, $(1 - \gamma^{20}) / (1 - \gamma) = 18.2$. The policy does
# not suffer here, because a policy that keeps the pole up for twenty more steps from any state keeps it
# up forever. This is specific to the task; the values are wrong by a factor of five.
#
# ## Images (post, 2.3.1)
#
# For image observations, the same `dqn` builds a CNN and stores every image once. MinAtar's Breakout
# has 10 x 10 cells with 4 channels: paddle, ball, trail and bricks.

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
# The return starts to increase. These games need millions of steps: see the
# [scores](../scripts/results/learning.md).
#
# ## Rainbow as one expression
#
# Every later improvement is one more part. All of them together are Rainbow (Hessel et al. 2018,
# arXiv:1710.02298), and each line can be removed for an ablation:

# %%
rainbow = partial(
    dqn.dqn,
    network=partial(dqn.noisy_network, stream=networks.Dueling),
    head=heads.categorical,
    bootstrap=dqn.double,
    explore=dqn.greedy,
    storage=dqn.n_step_storage,
    memory=dqn.prioritized_replay,
)
config = prl.preset("rainbow", "CartPole-v1").replace(
    algorithm=rainbow,
    total_steps=STEPS // 4,
    num_updates=2,
    batch_size=32,
    capacity=10_000,
    warmup_steps=300,
)
states, metrics = jax.jit(jax.vmap(prl.make_train(config)))(jax.random.split(jax.random.key(3), 2))
_, returns = series(metrics, config, "returns", 3)
print("two seeds, mean return of each third of the run:", returns.round(0).tolist())
upright = jnp.zeros((1, 4))
print("expected returns there:", prl.q_values(config, prl.seed_state(states, 0), upright)[0])

# %% [markdown]
# Both short runs improve.
#
# ## Exercise
#
# Which part of Rainbow helps on CartPole? Take `per_dqn`, `n_step_dqn`, `dueling_dqn`, `noisy_dqn` and
# `c51` (`prl.preset(name, "CartPole-v1")`) for 22,000 steps each with 8 seeds, and compare them with
# `plot.comparison` from `purejaxrl_sac.experiment`.
#
# **What to read next:** explicit policies and their gradients:
# [04_actor_critic.ipynb](04_actor_critic.ipynb). In the code: `purejaxrl_sac/agents/dqn.py` and
# `distributional.py`.
