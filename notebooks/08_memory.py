# %% [markdown]
# # 8. Memory
#
# The post "From Q-learning to Soft Actor Critic" assumes that the agent observes the state
# (section 1.1). Where it observes only a part of it, the best action depends on all that the episode has
# shown: the problem is a *partially observable* Markov decision process (POMDP). This chapter computes
# what can be reached with and without a memory, and trains agents that have one.

# %%
# %matplotlib inline
import os
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import purejaxrl_sac as prl
from purejaxrl_sac import mdp
from purejaxrl_sac.envs.partially_observed import PartiallyObserved
from purejaxrl_sac.experiment import statistics
from purejaxrl_sac.experiment.pictures.plot import COLORS
from purejaxrl_sac.mdp import alpha_vectors, beliefs, controllers

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
SEEDS, LENGTHS, SCALE = (2, (3,), 0.05) if SHORT else (10, (5, 10, 20), 1.0)
keys = jax.random.split(jax.random.key(0), SEEDS)

# %% [markdown]
# ## A corridor
#
# In the T-maze (Bakker 2001), the first cell shows where to turn at the end of a corridor of $L$ cells.
# The correct turn gives 4, the wrong one $-0.1$. A POMDP adds to an MDP the probabilities
# $O(z\,|\,a, s')$ of what is observed on arrival: here the cue in the first cell, then only "corridor" or
# "junction".
#
# The agent's knowledge is a *belief*, a distribution over states. Bayes' rule updates it after an action
# and an observation:
#
# $$b'(s') \propto O(z\,|\,a, s') \sum_s P(s'\,|\,s, a)\, b(s)$$

# %%
maze = mdp.t_maze(length=3)
belief, probability = beliefs.initial_belief(maze, 0)
print(f"the cue 'up' has probability {probability}; then the states have beliefs {belief}")
for observation in (2, 2, 3):
    belief, _ = beliefs.belief_update(maze, belief, 1, observation)
    print(f"after a move to the right: {belief}")

# %% [markdown]
# The belief never forgets the cue, so that the optimal policy turns correctly: $4 \gamma^L$. A policy of
# the last observation alone sees the same at the junction in both mazes. `controllers.best_memoryless`
# enumerates all deterministic ones, `beliefs.optimal_value` backs values up over the tree of beliefs.

# %%
for length in LENGTHS:
    maze = mdp.t_maze(length)
    optimum = beliefs.optimal_value(maze, 1.0, horizon=length + 1)
    _, forgetful = controllers.best_memoryless(maze, 1.0, horizon=100)
    print(f"L = {length:2}: {optimum:.2f} with memory, {forgetful:.2f} without")

# %% [markdown]
# ## Networks that remember
#
# A recurrent network replaces the belief by a vector that it updates in each step, its *carry*: it learns
# what to keep. `recurrent_ppo` is `ppo` with such a network between its layers. The carry is a part of
# the train state, is reset where an episode ends, and is stored with every rollout, so that updates unroll
# sequences from where they began.


# %%
def trained(algorithm, env, steps, **changes):
    """All seeds of an agent, and their mean greedy returns."""
    config = prl.preset(algorithm, "t_maze").replace(
        env=env, total_steps=int(steps * SCALE), **changes
    )
    state, _ = jax.jit(jax.vmap(partial(prl.train, config=config)))(keys)
    axes = prl.seed_axes(state)
    evaluate = partial(prl.evaluate, config=config, episodes=200)
    score = jax.jit(jax.vmap(lambda key, state: evaluate(key, state=state).mean(), (0, axes)))
    return config, state, np.asarray(score(jax.random.split(jax.random.key(1), SEEDS), state))


scores = {}
for length in LENGTHS:
    env = PartiallyObserved(mdp.t_maze(length), f"T-maze of {length}", max_steps=10 * length)
    for algorithm in ("ppo", "recurrent_ppo"):
        config, state, scores[algorithm, length] = trained(algorithm, env, 200_000)

# %% tags=["picture"]
figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=100, layout="constrained")
for i, (algorithm, label) in enumerate((("ppo", "PPO"), ("recurrent_ppo", "recurrent PPO"))):
    for j, length in enumerate(LENGTHS):
        found = scores[algorithm, length]
        spread = j + 0.24 * (i - 0.5) + np.linspace(-0.08, 0.08, SEEDS)
        axes.plot(spread, found, "o", color=COLORS[i], alpha=0.6, label=label if j == 0 else None)
axes.axhline(4, color="black", linewidth=1, label="optimum")
axes.axhline(1.95, color="black", linewidth=1, linestyle="--", label="best memoryless policy")
axes.set_xticks(range(len(LENGTHS)), LENGTHS)
axes.set(xlabel="length of the corridor", ylabel="greedy return", xlim=(-0.5, len(LENGTHS) - 0.5))
axes.set_title("T-maze: each dot is a seed", fontsize="medium")
axes.legend(loc="center", ncols=2, fontsize="small")
plt.show()

# %% [markdown]
# The dashed line is the best deterministic policy without a memory. Each seed of PPO always takes the same
# turn, so that its return depends on the goals of its evaluation episodes. With a memory, the cue is
# carried through the corridor.
#
# ## What is in the carry
#
# With one trained agent, we play an episode with each cue and record the carry. The carries of the two
# cues stay apart over the whole corridor, while each changes less and less from step to step.

# %%
agent_state = prl.seed_state(state, int(scores["recurrent_ppo", LENGTHS[-1]].argmax()))
_, agent, _ = prl.build(config)
begun = jnp.array([0, 1])  # both cues
carry, carries = agent.init_carry(2), []
for step in range(LENGTHS[-1]):
    obs = begun if step == 0 else jnp.full(2, 2)
    _, carry = agent.policy(jax.random.key(0), agent_state.agent, obs, carry)
    carries.append(carry)
carries = np.stack(carries)  # [L, 2, units]
distance = np.linalg.norm(carries[:, 0] - carries[:, 1], axis=-1)
change = np.linalg.norm(np.diff(carries, axis=0), axis=-1).mean(1)

figure, axes = plt.subplots(figsize=(6.4, 3.0), dpi=100, layout="constrained")
axes.plot(
    range(1, len(distance) + 1), distance, "o-", color=COLORS[1], label="between the two cues"
)
axes.plot(range(2, len(distance) + 1), change, "o-", color=COLORS[0], label="from step to step")
axes.set(xlabel="step of the episode", ylabel="distance of carries", ylim=(0, None))
axes.xaxis.get_major_locator().set_params(integer=True)
axes.legend(loc="center right", fontsize="small")
plt.show()

# %% [markdown]
# ## Counting evidence
#
# A cue may also be uncertain. Behind one of two doors there is a tiger (Kaelbling, Littman & Cassandra
# 1998). Listening costs 1, and the tiger is heard behind its own door in 85 % of cases, otherwise behind
# the other one. Opening its door costs 100, the other gives 10. The optimal value is a maximum of linear
# functions of the belief, the *alpha-vectors*, each of which is the value of a plan. Where they cross, the
# best plan changes; its first action changes only at the two outermost crossings, beyond which it is to open
# a door.

# %%
tiger = mdp.tiger()
alphas = alpha_vectors.optimal_vectors(tiger, 0.95)
left = np.linspace(0, 1, 501)  # the probability that the tiger is behind the left door
values = alphas @ np.stack([left, 1 - left])
print(f"value of the uniform belief: {alpha_vectors.value(alphas, [0.5, 0.5]):.4f}")

finite = alpha_vectors.optimal_vectors(tiger, 1.0, horizon=100)
print(f"100 steps, undiscounted: {alpha_vectors.start_value(tiger, finite):.2f}")

figure, axes = plt.subplots(figsize=(6.4, 3.0), dpi=100, layout="constrained")
axes.plot(left, values.T, color="0.85", linewidth=0.8)
axes.plot(left, values.max(0), color=COLORS[0])
axes.set(
    xlabel="probability that the tiger is left",
    ylabel="value",
    ylim=(values.max(0).min() - 5, None),
)
plt.show()

# %% [markdown]
# Listening until one side leads by two is optimal here. The agent below has to find
# that out and to count. It observes its last action together with what it hears, because while it explores,
# actions do not follow from what was observed before.

# %%
config, state, found = trained(
    "recurrent_ppo", "tiger_with_actions", 500_000, gamma=0.95, cell="gru"
)
low, high = statistics.bootstrap_interval(found)
print(f"recurrent PPO: IQM {statistics.iqm(found):.1f} [{low:.1f}, {high:.1f}] in 100 steps")

agent_state = prl.seed_state(state, int(found.argmax()))
_, agent, _ = prl.build(config)
NAMES = ("listen", "open left", "open right")
for roars in ((), (0,), (0, 0), (0, 1), (1, 1), (0, 1, 1, 1)):
    carry = agent.init_carry(1)
    for obs in (6, *roars):  # 6 at the start; after listening, the side that was heard, 0 or 1
        action, carry = agent.policy(jax.random.key(0), agent_state.agent, jnp.array([obs]), carry)
    heard = ", ".join(("left", "right")[side] for side in roars) or "nothing yet"
    print(f"heard {heard}: {NAMES[int(action[0])]}")

# %% [markdown]
# ## Exercise
#
# `prl.preset("recurrent_ppo", "CartPole-positions")` balances the pole without seeing velocities, which
# two observations determine. Compare it with `ppo` on `prl.frames.frame_stack("CartPole-positions", 2)`.
# Which of the two needs fewer steps, and why? What changes on the T-maze?
#
# ## What to read next
#
# * `purejaxrl_sac/networks/recurrent.py`: the torsos.
# * `purejaxrl_sac/agents/recurrent_dqn.py` and `recurrent_sac.py`: DQN, R2D2 and SAC with replayed sequences.
# * `purejaxrl_sac/mdp/beliefs.py`, `alpha_vectors.py` and `controllers.py`: exact values.
