# %% [markdown]
# # 7. Forks for research
#
# This chapter has no section in the post "From Q-learning to Soft Actor Critic". It modifies the DQN of
# section 2, with a soft average over actions as in section 4 instead of the maximum, in the steps of a
# small study: an environment, two modifications, a comparison with intervals, a sweep, and a run that
# is stored, extended and exported.
#
# No file is changed. The loop (`train.py`) and the algorithm (`agents/dqn.py`) take their parts as
# functions, so a modification is as short as its equation.

# %%
# %matplotlib inline
import os
import runpy
import tempfile
from functools import partial
from pathlib import Path

from purejaxrl_sac.experiment.devices import mesh

# two devices on two cores; must precede any computation, such as gymnax's import
mesh.use_cpu_devices(2)

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from IPython.display import Image

import purejaxrl_sac as prl
from purejaxrl_sac import losses
from purejaxrl_sac.agents import dqn
from purejaxrl_sac.config import traced
from purejaxrl_sac.experiment import export, statistics
from purejaxrl_sac.experiment.pictures.plot import COLORS, draw_curve
from purejaxrl_sac.experiment.runs import engine, plans
from purejaxrl_sac.experiment.tuning import points, sweep
from purejaxrl_sac.types import Index, NextQ

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
SEEDS, STEPS, CHUNKS = (2, 800, 2) if SHORT else (16, 10_000, 24)
RATES, OMEGAS, SWEPT = (
    ((1e-3,), (1.0, 10.0), 2) if SHORT else ((3e-4, 1e-3, 3e-3), (1.0, 3.0, 10.0), 6)
)

folder = Path(tempfile.mkdtemp())
print(f"{jax.device_count()} devices")

# %% [markdown]
# ## An environment
#
# Any environment with gymnax's interface can be used. A cart on a line starts at rest in a random
# position and should stop at 0; it moves between $-2$ and $2$ with a speed of at most 1. Actions
# accelerate it by $-1$, $0$ or $1$, and every step costs $x^2 + \dot x^2 / 10$. Episodes do not terminate:
# after 50 steps they are truncated by a time limit, at which targets bootstrap.


# %%
@struct.dataclass
class CartState:
    x: jax.Array
    velocity: jax.Array
    time: jax.Array


@struct.dataclass
class CartParams:
    max_steps_in_episode: int = 50


class Cart(environment.Environment):
    name = "Cart"
    default_params = CartParams()

    def reset_env(self, key, params):
        state = CartState(
            jax.random.uniform(key, minval=-1, maxval=1), jnp.float32(0), jnp.int32(0)
        )
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        velocity = jnp.clip(state.velocity + 0.2 * (action - 1), -1, 1)
        state = CartState(jnp.clip(state.x + 0.2 * velocity, -2, 2), velocity, state.time + 1)
        cost = jnp.square(state.x) + 0.1 * jnp.square(velocity)
        return self.get_obs(state), state, -cost, jnp.bool_(False), {}

    def get_obs(self, state, params=None, key=None):
        return jnp.stack([state.x, state.velocity])

    def action_space(self, params=None):
        return spaces.Discrete(3)

    def observation_space(self, params):
        return spaces.Box(-jnp.inf, jnp.inf, (2,))


config = prl.default_config("dqn").replace(
    env=Cart(), total_steps=STEPS, num_envs=4, num_updates=2, batch_size=64, capacity=STEPS,
    warmup_steps=400, gamma=0.95, learning_rate=1e-3, tau=0.02, target_period=1,
    epsilon_end=0.05, epsilon_fraction=0.3,
)  # fmt: skip


def at_random(config, state):
    return lambda key, obs: jax.random.randint(key, obs.shape[:1], 0, 3)


random_return = prl.evaluate(jax.random.key(0), config, None, 1_000, policy=at_random).mean()
print(f"random pushes earn {random_return:.1f}")

# %% [markdown]
# ## A bootstrap
#
# A bootstrap defines the value of the next state as $\sum_{a'} \pi(a')\, Q(s', a'; \theta^-) + \text{bonus}$
# by returning $\pi$ and the bonus. DQN's has the greedy $\pi$ and no bonus. Ours is *mellowmax* (Asadi &
# Littman 2017, arXiv:1612.05628),
#
# $$V(s') = \frac 1 \omega \log\Big(\frac 1 {|\mathcal A|} \sum_{a'} e^{\omega Q(s', a'; \theta^-)}\Big),$$
#
# the soft value of section 4.1 with $\alpha = 1/\omega$ minus the entropy term of the uniform policy. It lies between the mean ($\omega \to 0$) and the maximum ($\omega \to \infty$). With
# $\pi = \mathrm{softmax}(\omega Q)$ the bonus is $(\mathcal H(\pi) - \log|\mathcal A|)/\omega$.


# %%
def mellow(config, next_q):
    pi = jax.nn.softmax(config.omega * next_q.target)
    return pi, (losses.entropy(pi) - jnp.log(pi.shape[-1])) / config.omega


class MellowConfig(dqn.DQNConfig):
    omega: float = traced(10.0, above=0)  # traced: a sweep over it is one program


q = jax.random.normal(jax.random.key(0), (5, 3))
pi, bonus = mellow(MellowConfig(), NextQ(online=q, target=q, pi=None))
closed_form = jnp.log(jnp.exp(10 * q).mean(-1)) / 10
print(
    f"largest difference from the formula: {jnp.abs((pi * q).sum(-1) + bonus - closed_form).max():.1e}"
)

# %% [markdown]
# ## A memory
#
# A memory draws the transitions of the next updates; its storage defines how they are stored. Here
# recent ones are drawn more often: the age, as a fraction of the stored steps, has the distribution
# $\mathrm{Beta}(1, 3)$. Everything else is that of the uniform memory.


# %%
def recent(config, storage):
    rows = storage.capacity // storage.num_envs

    def draw(key, state, step, num_updates):
        key_age, key_env = jax.random.split(key)
        shape = (num_updates, config.batch_size)
        stored = jnp.minimum(step, rows)
        age = (jax.random.beta(key_age, 1.0, 3.0, shape) * stored).astype(jnp.int32)
        env = jax.random.randint(key_env, shape, 0, storage.num_envs)
        return storage.read(state, step, Index(step - 1 - jnp.minimum(age, stored - 1), env))

    return dqn.uniform_replay(config, storage)._replace(draw=draw)


storage = dqn.replay_storage(config, prl.envs.bind(config.env))
indices = storage._replace(read=lambda state, step, index: index)
for memory in (dqn.uniform_replay, recent):
    drawn = memory(config, indices).draw(jax.random.key(0), None, jnp.int32(100), 100)
    print(f"{memory.__name__}: median age {np.median(99 - drawn.time):.0f} of 100 steps")

# %% [markdown]
# ## A comparison
#
# Four variants with the same seeds. `engine.train_seeds` distributes the seeds over both devices and
# evaluates each on 128 greedy episodes. Bands and bars are 95 % bootstrap intervals of the
# interquartile mean over seeds.

# %%
fields = {
    name: getattr(config, name) for name in config.__dataclass_fields__ if name != "algorithm"
}
mellow_config = MellowConfig(algorithm=partial(dqn.dqn, bootstrap=mellow), **fields)
variants = {
    "DQN": config,
    "mellow": mellow_config,
    "recent": config.replace(algorithm=partial(dqn.dqn, memory=recent)),
    "both": mellow_config.replace(algorithm=partial(dqn.dqn, bootstrap=mellow, memory=recent)),
}
results = {
    label: engine.train_seeds(plans.plan(variant, SEEDS, chunks=CHUNKS))
    for label, variant in variants.items()
}
scores = {label: result.evaluation.mean(1) for label, result in results.items()}  # [seeds]

# %% tags=["picture"]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), dpi=100, layout="constrained")
for i, (label, result) in enumerate(results.items()):
    style = {"color": COLORS[i]}
    steps = np.array([progress.steps for progress in result.history])
    returns = np.stack([progress.episode_return for progress in result.history], 1)
    draw_curve(left, steps, returns, style, label)
    low, high = statistics.bootstrap_interval(scores[label])
    right.plot([low, high], [label, label], linewidth=8, alpha=0.4, solid_capstyle="butt", **style)
    right.plot(statistics.iqm(scores[label]), label, "o", **style)
left.set(title="return while training: IQM, 95 % interval", xlabel="environment steps")
left.set_ylim(random_return / 4, 0)
left.legend(fontsize="small")
right.set(title="greedy return at the end, IQM", xlabel="return")
right.invert_yaxis()
for axes in (left, right):
    axes.grid(alpha=0.2)

# %%
for label in ("mellow", "recent", "both"):
    better = statistics.probability_of_improvement(scores[label], scores["DQN"])
    low, high = statistics.bootstrap_interval(scores[label])
    print(
        f"{label}: IQM [{low:.2f}, {high:.2f}], above a seed of DQN with probability {better:.2f}"
    )
low, high = statistics.bootstrap_interval(scores["DQN"])
print(f"DQN: IQM [{low:.2f}, {high:.2f}]; random pushes {random_return:.2f}")

# %% [markdown]
# On this task, recent experience helps: its interval does not overlap with that of DQN. The interval of
# mellowmax alone does, so these seeds do not show an effect. Results on one small task do not
# generalise; the example shows that such a question takes one function and one minute.
#
# ## A sweep as lanes
#
# `learning_rate` and `omega` are traced: every combination of their values, with every seed, is a lane
# of one program, distributed over the devices. A static field such as `hidden_sizes` would need a
# program for each of its values. The best point was selected by its score, which is therefore biased:
# the point is retrained with new seeds, and that score should be reported.

# %%
swept = sweep.run(
    mellow_config,
    points.grid(learning_rate=RATES, omega=OMEGAS),
    SWEPT,
    out=folder / "sweep",
    chunks=4,
)
print(
    f"{len(swept.sweep.points)} points x {SWEPT} seeds, {len(list(swept.sweep.programs()))} program"
)
print(f"best: {swept.sweep.points[swept.best]}")
print(
    f"IQM when selected {statistics.iqm(swept.scores[swept.best]):.2f}, retrained {statistics.iqm(swept.fresh):.2f}"
)
Image(filename=folder / "sweep" / ("sensitivity.png" if SHORT else "heatmap.png"), width=480)

# %% [markdown]
# ## A stored run
#
# `prl.experiment.run` writes a directory with the configuration, metrics, checkpoints and figures. It can
# be killed at any time; `resume` continues from the last checkpoint with identical results or, with
# `steps`, extends a finished run. Custom functions cannot be serialised, so the configuration is passed
# again.

# %%
best = mellow_config.replace(**swept.sweep.points[swept.best])
run = prl.experiment.run(best, seeds=4, out=folder / "run", chunks=4)
longer = prl.experiment.resume(folder / "run", config=best, steps=2 * STEPS)
print(sorted(path.name for path in (folder / "run").iterdir() if not path.name.startswith(".")))
print(f"steps of each environment: {run.state.step}, then {longer.state.step}")

# %% [markdown]
# An exported policy is a StableHLO program with its parameters and a short Python file that loads it. It
# requires jax and numpy, but not this package.

# %%
export.export_policy(best, prl.seed_state(longer.state, 0), folder / "policy")
act = runpy.run_path(str(folder / "policy" / "load.py"))["act"]
obs = np.array([[-0.5, 0.0], [0.0, 0.0], [0.5, 0.0], [0.2, -0.6]], np.float32)
ours = prl.policy(best, prl.seed_state(longer.state, 0))(jax.random.key(0), obs)
print(
    f"pushes: {np.asarray(act(obs)) - 1}, of the exported policy; {np.asarray(ours) - 1}, of ours"
)

# %% [markdown]
# ## Exercise
#
# Mellowmax with one $\omega$ for all states is too soft if values differ little and too hard if they
# differ much. Write a bootstrap whose $\omega$ depends on the spread of $Q(s', \cdot)$, and compare it
# with the variants above. How many seeds are needed for an interval of the difference that excludes 0?
#
# ## What to read next
#
# * The README's sections "Scale", on devices, hosts and searches, and "Fault-tolerant runs".
# * `purejaxrl_sac/types.py`: the contracts of all parts.
# * `purejaxrl_sac/agents/distributional.py`: Rainbow as one expression of such parts.
# * [6. SAC](06_sac.ipynb), whose parts are functions, too.
