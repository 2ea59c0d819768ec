# %% [markdown]
# # Quickstart: SAC on Pendulum with 32 seeds
#
# Soft Actor-Critic (post "From Q-learning to Soft Actor Critic", section 4) on gymnax's
# `Pendulum-v1`, with 32 independent seeds in one compiled program. The notebook takes a few minutes
# on two CPU cores.

# %%
# %matplotlib inline
import os
import tempfile
import time
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import purejaxrl_sac as prl
from purejaxrl_sac.experiment.pictures.plot import learning_curve, series
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
SEEDS, STEPS, POINTS = (2, 1_600, 3) if SHORT else (32, 6_000, 25)
EPISODES, FRAMES = (8, 12) if SHORT else (512, 120)
print("purejaxrl_sac", prl.__version__, "- jax", jax.__version__, "on", jax.devices())

# %% [markdown]
# ## Train
#
# Terms of JAX, such as traced and static, are explained in the glossary of the [README](../README.md).
#
# A preset is a dataclass. Shapes, counts and what networks are built from are static, every other number
# is traced. To keep the notebook short, the preset is changed here to fewer and smaller updates with a
# matching learning rate. (The times below were measured while other programs were running on both cores.)

# %%
config = prl.preset("sac", "Pendulum-v1").replace(
    total_steps=STEPS,
    num_updates=1,
    batch_size=64,
    learning_rate=3e-3,
    learning_rate_end=1.0,
    tau=0.01,
)
config

# %%
keys = jax.random.split(jax.random.key(0), SEEDS)

began = time.perf_counter()
train = jax.jit(jax.vmap(prl.make_train(config))).lower(keys).compile()
print(f"compiled in {time.perf_counter() - began:.1f} s")

began = time.perf_counter()
state, metrics = jax.block_until_ready(train(keys))
seconds = time.perf_counter() - began
print(f"{SEEDS} seeds x {config.total_steps:,} steps in {seconds:.1f} s")
print(f"{SEEDS * config.total_steps / seconds:,.0f} environment steps per second")

# %% [markdown]
# ## The learning curve
#
# Metrics are scan outputs, one row per iteration and seed: the number of finished episodes, the
# sums of their returns and lengths, and the agent's metrics. `series` converts them to a curve.

# %% tags=["picture"]
steps, returns = series(metrics, config, points=POINTS)
learning_curve(steps, returns, "SAC on Pendulum-v1")

# %% [markdown]
# ## Evaluation
#
# Greedy policies are evaluated on new episodes, with a separate key. Optimal returns differ a lot
# between start states, so each seed is evaluated on 512 episodes. Consider the worst seed as well as
# the average: a single seed could have been either.

# %%
play = jax.jit(jax.vmap(lambda s: prl.evaluate(jax.random.key(1), config, s, episodes=EPISODES)))
scores = np.asarray(play(state)).mean(1)
low, high = bootstrap_interval(scores)
print(f"IQM {iqm(scores):.1f}, 95 % interval [{low:.1f}, {high:.1f}], worst {scores.min():.1f}")

# %% [markdown]
# ## Diagnostics
#
# If an agent does not learn, check its metrics before tuning hyperparameters: the entropy should
# converge to its target, -1 nat here, and the temperature with it.

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
learned = config.warmup_steps + np.arange(config.iterations)
for ax, name in zip(axes, ("entropy", "alpha", "q"), strict=True):
    low, middle, high = np.percentile(np.asarray(metrics[name]), [10, 50, 90], axis=0)
    ax.fill_between(learned, low, high, alpha=0.3, linewidth=0)
    ax.plot(learned, middle, linewidth=0.8)
    ax.set(title=name, xlabel="environment steps")
axes[0].axhline(config.target_entropy_per_dim, color="black", linestyle=":", linewidth=1)
axes[1].set_yscale("log")
axes[0].set_ylabel("median and 10-90 %")
plt.show()

# %% [markdown]
# ## Render an episode
#
# `prl.policy` converts the state of one seed into a function from observations to actions in
# environment units, which works in any gymnax environment loop, such as this one.

# %%
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # the renderer needs no screen or audio device
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
from gymnax.visualize import Visualizer
from IPython.display import Image

env = prl.envs.make(config.env)
best = jax.tree.map(lambda x: x[int(scores.argmax())], state)
policy = jax.jit(prl.policy(config, best))

key = jax.random.key(6)
obs, env_state = env.reset(key, env.default_params)
frames, rewards = [], []
for _ in range(FRAMES):
    action = policy(key, obs[None])[0]
    obs, env_state, reward, *_ = env.step(key, env_state, action, env.default_params)
    frames.append(env_state)
    rewards.append(reward)

path = Path(tempfile.mkdtemp()) / "pendulum.gif"
viewer = Visualizer(env, env.default_params, frames[::3], np.cumsum(rewards)[::3])
viewer.fig.set_dpi(50)
viewer.animate(str(path))
plt.close("all")
Image(data=path.read_bytes(), format="gif")

# %% [markdown]
# ## Exercise
#
# Set `alpha_learning_rate=0.0` and sweep a fixed temperature `alpha` over a few values as lanes of
# one program (`jax.vmap` over `config.replace(alpha=jax.numpy.array([...]))`). How does
# the best fixed temperature compare with the learned one?
#
# **What to read next:** the chapters start with [01_q_learning.ipynb](01_q_learning.ipynb), in the
# notation of the post. For SAC, continue with [06_sac.ipynb](06_sac.ipynb) and
# `purejaxrl_sac/agents/sac.py`, which implements its equations.
