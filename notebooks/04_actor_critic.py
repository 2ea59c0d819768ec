# %% [markdown]
# # 4. Actor-critic
#
# This chapter follows section 3 of the post "From Q-learning to Soft Actor Critic": a
# parametrised policy $\pi_\theta(a \mid s)$, the policy gradient, and the advantage
# $A^\pi(s, a) = Q^\pi(s, a) - V^\pi(s)$ (post, 3.3).
#
# On a small MDP the gradient can be computed exactly, so that its estimators can be compared with it.
# Then A2C learns CartPole with three estimators of the advantage.

# %%
# %matplotlib inline
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

import purejaxrl_sac as prl
from purejaxrl_sac import mdp
from purejaxrl_sac.experiment.pictures.plot import COLORS, draw_curve, series
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm
from purejaxrl_sac.mdp import dynamic_programming as dp
from purejaxrl_sac.returns import lambda_returns

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
EPISODES, SEEDS, STEPS, POINTS = (500, 2, 10_000, 4) if SHORT else (20_000, 8, 150_000, 30)
GAMMA = 0.9

# %% [markdown]
# ## The exact gradient
#
# The chain has five states: moving forward gives a reward of 0, except at the end of the chain, where
# it is 10; returning to the start gives 2; with probability 1/5 the other action is executed. The
# policy is a softmax of one parameter per state and action,
# $\pi_\theta(a \mid s) \propto e^{\theta(s, a)}$. Its value $J(\theta) = V^{\pi_\theta}(s_0)$ is the solution
# of linear equations, and differentiable:

# %%
chain = mdp.chain()
theta = 0.5 * jax.random.normal(jax.random.key(0), chain.legal.shape)


def J(theta):
    return chain.start @ dp.policy_evaluation(chain, GAMMA, jax.nn.softmax(theta))


exact = jax.grad(J)(theta)

# %% [markdown]
# The policy gradient theorem (post, 3.3) gives the same gradient without differentiating the environment:
#
# $$\nabla_\theta J(\theta) = \mathbb E_{s \sim d^\pi, a \sim \pi_\theta}\left[\nabla_\theta \log \pi_\theta(a \mid s)
# \cdot A^\pi(s, a)\right], \qquad d^\pi(s) = \sum_t \gamma^t P(s_t = s),$$
#
# where $d^\pi$ is the discounted state visitation, also the solution of linear equations. For this
# softmax the gradient is $d^\pi(s)\, \pi(a \mid s)\, A^\pi(s, a)$:

# %%
pi = jax.nn.softmax(theta)
v = dp.policy_evaluation(chain, GAMMA, pi)
q = dp.backup(chain, GAMMA, v)
advantage = q - v[:, None]
P_pi = jnp.einsum("sa,sat->st", pi, chain.P)
d = jnp.linalg.solve(jnp.eye(len(v)) - GAMMA * P_pi.T, chain.start)
theorem = d[:, None] * pi * advantage
print("V of the five states:", *(f"{x:.1f}" for x in v))
print(
    f"largest entry {jnp.abs(exact).max():.3f}; the two differ by {jnp.abs(theorem - exact).max():.1e}"
)

# %% [markdown]
# ## The sampled gradient
#
# From sampled episodes the gradient can be estimated by
# $\sum_t \gamma^t\, \nabla_\theta \log \pi_\theta(a_t \mid s_t)\, \Psi_t$, with three choices of $\Psi_t$:
#
# * REINFORCE: $\Psi_t = G_t = \sum_k \gamma^k r_{t+k}$, the return from step $t$ on;
# * with a baseline: $\Psi_t = G_t - V^\pi(s_t)$;
# * actor-critic: $\Psi_t = r_t + \gamma V^\pi(s_{t+1}) - V^\pi(s_t)$, the TD error.
#
# With the true $V^\pi$ all three are unbiased. They differ in variance.

# %%
config = prl.default_config("q_learning").replace(env="chain", gamma=GAMMA)


def softmax_policy(config, state):
    return lambda key, obs: jax.random.categorical(key, theta[obs])


play = jax.jit(lambda key: prl.rollout_episodes(key, config, None, EPISODES, policy=softmax_policy))
played, inside = play(jax.random.key(1))
reward = played.reward * inside
discounts = (GAMMA ** jnp.arange(len(reward)))[:, None]
to_go = jnp.cumsum((discounts * reward)[::-1], 0)[::-1] / discounts  # G_t

psi = {
    "REINFORCE": to_go,
    "with a baseline": to_go - v[played.obs],
    "actor and critic": reward + GAMMA * v[played.next_obs] - v[played.obs],
}
score = jax.nn.one_hot(played.action, 2) - pi[played.obs]  # grad log pi(a|s), in row s


def per_episode(psi):
    """The estimate of every single episode, [EPISODES, 5, 2]."""
    terms = (discounts * inside * psi)[..., None] * score
    episode = jnp.broadcast_to(jnp.arange(EPISODES), played.obs.shape)
    return jnp.zeros((EPISODES, 5, 2)).at[episode, played.obs].add(terms)


estimates = {name: np.asarray(jax.jit(per_episode)(x)) for name, x in psi.items()}

# %% tags=["picture"]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), dpi=100, layout="constrained")
sizes = np.unique(np.geomspace(1, EPISODES // 20, 12).astype(int))
for color, (name, found) in zip(COLORS, estimates.items(), strict=False):
    mean, error = found.mean(0), found.std(0) / np.sqrt(EPISODES)
    left.errorbar(np.ravel(exact), mean.ravel(), 2 * error.ravel(), fmt="o", color=color,
                  markersize=3, linewidth=0.8, label=name)  # fmt: skip
    away = [
        np.linalg.norm(found[: 20 * n].reshape(20, n, -1).mean(1) - np.ravel(exact), axis=1).mean()
        for n in sizes
    ]
    right.loglog(sizes, away / np.linalg.norm(exact), "o-", color=color, markersize=3, label=name)
    z = np.abs(mean - exact)[error > 0] / error[error > 0]
    variance = found.var(0).sum()
    print(
        f"{name:16} variance {variance:.5f}; farthest entry from exact {z.max():.1f} standard errors"
    )
ends = np.array([exact.min(), exact.max()])
left.plot(ends, ends, color="black", linewidth=0.8)
left.set(xlabel="exact gradient, each entry", ylabel=f"mean of {EPISODES:,} episodes")
left.set_title("right on average (bars: 2 standard errors)", fontsize="medium")
right.set(xlabel="episodes averaged", ylabel="distance from exact / length of exact")
right.set_title("how far an update strays", fontsize="medium")
left.legend(frameon=False)
right.grid(alpha=0.2, which="both")
plt.show()

# %% [markdown]
# All three lie on the diagonal. But most of a return is the value of the state, which does not depend
# on the action: subtracting it reduces the variance to a seventh, and a TD error instead of the return
# reduces it to a seventh of that. REINFORCE needs about a thousand episodes for the accuracy that
# actor-critic has with about twenty.
#
# In one detail practice differs from the theorem: A2C, like most such algorithms, omits the factor
# $\gamma^t$ of each term, which changes the direction of the gradient:

# %%
visits, now = jnp.zeros(5), chain.start
for _ in range(100):  # an episode's steps
    visits, now = visits + now, now @ P_pi
practical = visits[:, None] * pi * advantage
cosine = (practical * exact).sum() / jnp.linalg.norm(practical) / jnp.linalg.norm(exact)
print(f"cosine of the angle between the two: {cosine:.3f}")

# %% [markdown]
# ## Bias and variance: lambda
#
# A learned $V$ has errors. Generalised advantages (arXiv:1506.02438), $A(s_t, a_t) = G_t - V(s_t)$,
# interpolate their targets $G_t$: $\lambda = 0$ is one reward and $V(s_{t+1})$, with the full bias of the
# critic, $\lambda = 1$ the return, with its full variance. (Errors of the subtracted $V(s_t)$ cause no
# bias: it is a baseline.) Here the critic is the true $V^\pi$ with added noise, and the errors of the
# targets of the episodes above, compared with $Q^\pi(s_t, a_t)$, are decomposed into bias and
# variance.

# %%
wrong = v + 2.0 * jax.random.normal(jax.random.key(2), v.shape)
EARLY = 50  # steps whose returns the end of the episode does not cut short
cells = (played.obs * 2 + played.action)[:EARLY]
weight = jnp.zeros(10).at[cells].add(1.0)  # visits of each (s, a)


@jax.jit
def taken_apart(trace_decay):
    """Root mean square of systematic and random errors, over visits."""
    trace = trace_decay * ~played.last
    next_v = wrong[played.next_obs]
    target = lambda_returns(played.reward, played.discount, next_v, trace, GAMMA)[:EARLY]
    error = target - q.ravel()[cells]
    mean = jnp.zeros(10).at[cells].add(error) / weight
    bias = jnp.sqrt((weight * mean**2).sum() / weight.sum())
    return bias, jnp.sqrt(jnp.square(error - mean[cells]).mean())


lambdas = jnp.linspace(0, 1, 21)
bias, scatter = np.transpose([taken_apart(x) for x in lambdas])
both = np.hypot(bias, scatter)
figure, axes = plt.subplots(figsize=(6, 3.2), dpi=110, layout="constrained")
axes.plot(lambdas, bias, color=COLORS[1], label="systematic error")
axes.plot(lambdas, scatter, color=COLORS[0], label="scatter")
axes.plot(lambdas, both, color="black", linewidth=1, label="both")
axes.set(xlabel=r"$\lambda$", ylabel=r"root mean square, of $G_t - Q^\pi$", ylim=(0, None))
axes.legend(frameon=False)
plt.show()
for i in (0, int(both.argmin()), 20):
    print(
        f"lambda {lambdas[i]:.2f}: systematic {bias[i]:.2f}, scatter {scatter[i]:.2f}, both {both[i]:.2f}"
    )

# %% [markdown]
# ## A2C on CartPole
#
# In each iteration sixteen environments take eight steps, and actor and critic are updated on these 128
# transitions. $\lambda$ is a traced number, so its values are lanes of one program, like seeds.

# %%
base = prl.preset("a2c", "CartPole-v1").replace(total_steps=STEPS)
lanes = jnp.repeat(jnp.array([0.0, 0.95, 1.0]), SEEDS)
axes_of = jax.tree.map(lambda _: None, base).replace(trace_decay=0)
keys = jnp.concatenate(3 * [jax.random.split(jax.random.key(3), SEEDS)])
states, metrics = jax.jit(jax.vmap(prl.train, (0, axes_of)))(keys, base.replace(trace_decay=lanes))
evaluate = jax.vmap(lambda s: prl.evaluate(jax.random.key(4), base, s, episodes=64))
scores = np.asarray(jax.jit(evaluate)(states)).mean(1)

figure, panels = plt.subplots(1, 2, figsize=(9.6, 3.4), dpi=110, layout="constrained")
for i, value in enumerate((0.0, 0.95, 1.0)):
    lane = slice(i * SEEDS, (i + 1) * SEEDS)
    found = {name: np.asarray(x)[lane] for name, x in metrics.items()}
    style, label = {"color": COLORS[i]}, rf"$\lambda$ = {value}"
    draw_curve(panels[0], *series(found, base, "returns", POINTS), style, label)
    draw_curve(panels[1], *series(found, base, "entropy", POINTS), style, label)
    low, high = bootstrap_interval(scores[lane])
    print(
        f"lambda {value:4}: greedy return, IQM {iqm(scores[lane]):.0f} [{low:.0f}, {high:.0f}],"
        f" worst seed {scores[lane].min():.0f}"
    )
panels[0].set(title="return while training", xlabel="environment steps")
panels[1].set(title="entropy of the policy, nats", xlabel="environment steps")
panels[0].legend(frameon=False)
for axes in panels:
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(alpha=0.2)
plt.show()

# %% [markdown]
# The greedy policies of nearly all seeds reach the maximum of 500. The TD error ($\lambda = 0$) is the
# slowest at first, while its critic is inaccurate, and has the highest training return at the end, when
# its policy has the lowest entropy of the three (right). Random errors average out over a batch and
# systematic ones do not, which is why $\lambda$ is usually closer to 1 than the minimum of the previous
# figure.
#
# ## Exercise
#
# Implement REINFORCE without a baseline: give `actor_critic` a `loss` of your own, a copy of
# `actor_critic_loss` with the return `choice.target` in place of the advantage. (Or set `value_coef` of
# `prl.preset("reinforce", "CartPole-v1")` to 0, so that its baseline is not trained.) How many more
# steps does it need?
#
# **What to read next:** policies that maximise their entropy, too:
# [05_maximum_entropy.ipynb](05_maximum_entropy.ipynb). In the code: `purejaxrl_sac/agents/a2c.py`, and
# `ppo.py` for several epochs of updates per rollout.
