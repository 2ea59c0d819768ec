# %% [markdown]
# # 7. Forks for research
#
# The post "From Q-learning to Soft Actor Critic" ends where research begins: with a target, a memory or
# an environment that is not in it yet. This chapter has no section of its own there. It takes the DQN
# of section 2, adds to it the kind of average over actions that section 4 has in place of the maximum,
# and goes the way of a paper: an environment, two ideas, a comparison with intervals, a sweep, and a
# run that is kept, continued and exported.
#
# Nothing here is a fork of a file. The loop (`train.py`) and the algorithm (`agents/dqn.py`) take their
# parts as functions, so an idea is as long as its equation.

# %%
# %matplotlib inline
import os
import runpy
import tempfile
from functools import partial
from pathlib import Path

from purejaxrl_sac.experiment.devices import mesh

mesh.use_cpu_devices(2)  # two devices out of two cores, before anything computes: gymnax does

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
from purejaxrl_sac.experiment import export, statistics
from purejaxrl_sac.experiment.pictures.plot import COLORS, draw_curve
from purejaxrl_sac.experiment.runs import engine, plans
from purejaxrl_sac.experiment.tuning import points, sweep
from purejaxrl_sac.types import Index

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
# Whatever follows gymnax's interface will do. A cart on a line starts somewhere, at rest, and should
# stand still at 0; it moves between $-2$ and $2$ with a speed of at most 1. Pushes are $-1$, $0$, $1$, and every step costs $x^2 + \dot x^2 / 10$. It never
# terminates: after 50 steps it is cut off, which is a time limit, and targets bootstrap through it.


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
# A bootstrap says what a successor is worth, as $\sum_{a'} \pi(a')\, Q(s', a'; \theta^-) + \text{bonus}$:
# it returns $\pi$ and the bonus. DQN's is the greedy $\pi$ and none. Ours is *mellowmax* (Asadi &
# Littman 2017),
#
# $$V(s') = \frac 1 \omega \log\Big(\frac 1 {|\mathcal A|} \sum_{a'} e^{\omega Q(s', a'; \theta^-)}\Big),$$
#
# the soft value of section 4.1 with $\alpha = 1/\omega$, less what the policy that knows nothing would
# have in entropy. It lies between the mean ($\omega \to 0$) and the maximum ($\omega \to \infty$). With
# $\pi = \mathrm{softmax}(\omega Q)$ the bonus is $(\mathcal H(\pi) - \log|\mathcal A|)/\omega$.


# %%
def mellow(config, successor):
    pi = jax.nn.softmax(config.omega * successor.target)
    return pi, (losses.entropy(pi) - jnp.log(pi.shape[-1])) / config.omega


@struct.dataclass
class MellowConfig(dqn.DQNConfig):
    omega: float = 10.0  # a number: traced, so that a sweep over it is one program


q = jax.random.normal(jax.random.key(0), (5, 3))
pi, bonus = mellow(MellowConfig(), dqn.Successor(q=q, target=q, pi=None))
closed_form = jnp.log(jnp.exp(10 * q).mean(-1)) / 10
print(
    f"largest difference from the formula: {jnp.abs((pi * q).sum(-1) + bonus - closed_form).max():.1e}"
)

# %% [markdown]
# ## A memory
#
# A memory draws the indices of what the next updates learn from; where transitions lie is the business
# of its storage. Here recent ones come more often: ages are a $\mathrm{Beta}(1, 3)$ share of all that is
# stored, and everything else is the uniform memory's.


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


indices = dqn.replay_storage(config, prl.envs.bind(config.env))._replace(
    read=lambda state, step, index: index
)
for memory in (dqn.uniform_replay, recent):
    drawn = memory(config, indices).draw(jax.random.key(0), None, jnp.int32(100), 100)
    print(f"{memory.__name__}: median age {np.median(99 - drawn.time):.0f} of 100 steps")

# %% [markdown]
# ## A comparison
#
# Four algorithms, two of them with `partial`, each with the same seeds. `runner.train_seeds` spreads the
# seeds over both devices, and then plays 128 greedy episodes with each. The interval says how much of a
# difference is luck: bands and bars are 95 % bootstrap intervals of the interquartile mean over seeds.

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
# On this cart, recent experience helps: its interval does not overlap with that of DQN. Mellowmax alone
# does, so these seeds do not tell whether it helps. One small task says little about others: the point
# is that such a question costs a function and a minute.
#
# ## A sweep as lanes
#
# `learning_rate` and `omega` are traced: every combination of their values, with every seed, is a lane
# of one program, spread over the devices. A static field such as `hidden_sizes` would cost a program
# for each of its values. The point that comes out best was chosen for its score, so it is trained anew with
# fresh seeds; that second score is the one to report.

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
    f"IQM as chosen {statistics.iqm(swept.scores[swept.best]):.2f}, anew {statistics.iqm(swept.fresh):.2f}"
)
Image(filename=folder / "sweep" / ("sensitivity.png" if SHORT else "heatmap.png"), width=480)

# %% [markdown]
# ## A run that is kept
#
# `prl.experiment.run` leaves a directory with the configuration, metrics, checkpoints and pictures. It can
# be killed at any moment; `resume` goes on from the last checkpoint as if nothing had happened, or, with
# `steps`, beyond its end. Only what cannot be written down, our own functions, is given again.

# %%
best = mellow_config.replace(**swept.sweep.points[swept.best])
run = prl.experiment.run(best, seeds=4, out=folder / "run", chunks=4)
longer = prl.experiment.resume(folder / "run", config=best, steps=2 * STEPS)
print(sorted(path.name for path in (folder / "run").iterdir() if not path.name.startswith(".")))
print(f"steps of each environment: {run.state.step}, then {longer.state.step}")

# %% [markdown]
# An exported policy is a StableHLO program with its parameters and twenty-five lines of Python that load it.
# They need jax and numpy, and nothing of this package.

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
# Mellowmax with one $\omega$ for all states is too soft where values differ little and too hard where they
# differ much. Write a bootstrap whose $\omega$ depends on the spread of $Q(s', \cdot)$, and compare it
# with the three above. How many seeds does it take until the interval of the difference leaves zero out?
#
# ## What to read next
#
# * The README's sections "Scale", on devices, hosts and searches, and "Runs that survive".
# * `purejaxrl_sac/types.py`: the contracts of `Agent`, `Memory` and `Storage`, in one page.
# * `purejaxrl_sac/agents/distributional.py`: Rainbow, as one expression of such parts.
# * [6. SAC](06_sac.ipynb), whose parts are functions in the same way.
