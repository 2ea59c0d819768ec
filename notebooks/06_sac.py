# %% [markdown]
# # 6. Soft Actor-Critic
#
# This chapter follows section 4.1.2 of the post "From Q-learning to Soft Actor Critic", equations
# 4.19 to 4.24, and its 4.3; its section 4.2, the automatic temperature, is announced there and derived here.
# $\theta$ are the parameters of the critics, $\bar\theta$ of their target copies, $\phi$ of the actor, and
# $\alpha$ is the temperature.
#
# First, every equation is compared with its implementation; then SAC is trained: 32 seeds with a
# learned temperature and some with fixed ones, with one and with two critics, and with discrete
# actions.

# %%
# %matplotlib inline
import os
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.ticker import MaxNLocator

import purejaxrl_sac as prl
from purejaxrl_sac import losses, networks
from purejaxrl_sac.agents import sac
from purejaxrl_sac.distributions import squashed_gaussian
from purejaxrl_sac.experiment.pictures.plot import COLORS, draw_curve, series
from purejaxrl_sac.experiment.statistics import bootstrap_interval, iqm, stratified_interval

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
SEEDS, FEW, STEPS, POINTS = (2, 2, 1_400, 2) if SHORT else (32, 5, 5_500, 22)
SINGLE, EPISODES, CARTPOLE_STEPS = (2, 4, 1_200) if SHORT else (8, 32, 12_000)
DRAWS = 1_000 if SHORT else 100_000

# %% [markdown]
# ## Setup
#
# `squashed_gaussian` is $\pi_\phi$; `gaussian_actor` and `twin_critics` build the networks of SAC. A short
# run provides parameters, and its policy a batch of transitions.

# %%
config = prl.preset("sac", "Pendulum-v1").replace(
    total_steps=STEPS,
    num_updates=1,
    batch_size=64,
    learning_rate=3e-3,
    learning_rate_end=1.0,
    tau=0.01,
)
env = prl.envs.bind(config.env)
actor = sac.gaussian_actor(config, env.observation_space, env.action_dim)
critics = sac.twin_critics(config, env.observation_space)

begun = jax.jit(prl.make_train(config.replace(total_steps=1_200)))
state, _ = begun(jax.random.key(0))
phi, theta, theta_bar = (
    state.agent.actor.params,
    state.agent.critic.params,
    state.agent.target_params,
)
alpha, gamma = jnp.exp(state.agent.log_alpha.params), config.gamma

explore = partial(prl.rollout_episodes, episodes=8, policy=prl.exploring_policy)
played, _ = jax.jit(lambda s: explore(jax.random.key(1), config, s))(state)
batch = jax.tree.map(lambda x: x[::5].reshape(-1, *x.shape[2:]), played)
batch = batch._replace(action=batch.action / 2)  # Pendulum's +-2 in the agent's units, +-1
print("a batch of", len(batch.reward), "transitions; alpha", f"{alpha:.3f}")

# %% [markdown]
# ## The critics: (4.19) and (4.20)
#
# The expectations over $s_{t+1}$ and $a_{t+1}$ are estimated by one sample of each, and the target's
# value is the minimum of two target critics (post, 4.3.2):
#
# $$J_Q(\theta) = \mathbb E_{\mathcal D}\left[\tfrac12 \left(Q_\theta(s_t, a_t) - y\right)^2\right], \qquad
# y = r + \gamma \left(\min_j Q_{\bar\theta_j}(s_{t+1}, a_{t+1}) - \alpha \log \pi_\phi(a_{t+1} \mid s_{t+1})\right)$$


# %%
def soft_target(key):
    pi = squashed_gaussian(*actor.apply(phi, batch.next_obs))
    next_action, next_log_prob = pi.sample_and_log_prob(seed=key)
    next_value = losses.soft_value(critics.apply(theta_bar, batch.next_obs, next_action), next_log_prob, alpha)  # fmt: skip
    return losses.td_target(batch.reward, batch.discount, gamma, next_value)


def J_Q(theta, y):
    return losses.soft_critic(critics.apply(theta, batch.obs, batch.action), y).mean()


# %% [markdown]
# Its gradient is (4.20), $\nabla_\theta Q_\theta(s_t, a_t)\,(Q_\theta(s_t, a_t) - y)$, without a gradient
# of the target. The explicit formula agrees with automatic differentiation:

# %%
y = soft_target(jax.random.key(2))
q, pull_back = jax.vjp(lambda theta: critics.apply(theta, batch.obs, batch.action), theta)
(by_hand,) = pull_back((q - y) / len(y))  # grad Q (Q - y), averaged
automatic = jax.grad(J_Q)(theta, y)


def apart(a, b):
    """The largest difference, relative to the largest entry."""
    flat = [jax.flatten_util.ravel_pytree(x)[0] for x in (a, b)]
    return jnp.abs(flat[0] - flat[1]).max() / jnp.abs(flat[1]).max()


print(
    f"J_Q = {J_Q(theta, y):.3f}; (4.20) by hand and automatic: apart by {apart(by_hand, automatic):.1e}"
)

# %% [markdown]
# ## Reparameterisation: (4.22)
#
# $$a_t = f_\phi(\epsilon_t; s_t) = \tanh\left(\mu_\phi(s_t) + \sigma_\phi(s_t) \odot \epsilon_t\right), \qquad
# \log \pi_\phi(a \mid s) = \log \mathcal N(u; \mu, \sigma^2) - \sum_d \log\left(1 - \tanh^2 u_d\right),\quad a = \tanh u.$$


# %%
def f(phi, epsilon, obs):
    mean, log_std = actor.apply(phi, obs)
    return jnp.tanh(mean + jnp.exp(log_std) * epsilon)


def log_pi(phi, action, obs):
    mean, log_std = actor.apply(phi, obs)
    u = jnp.arctanh(action)
    gaussian = jax.scipy.stats.norm.logpdf(u, mean, jnp.exp(log_std))
    return (gaussian - jnp.log(1 - action**2)).sum(-1)


pi = squashed_gaussian(jnp.full((DRAWS, 1), 0.5), jnp.full((DRAWS, 1), 0.0))
drawn, log_prob = pi.sample_and_log_prob(seed=jax.random.key(3))
order = jnp.argsort(drawn[:, 0])

figure, axes = plt.subplots(figsize=(6, 2.8), dpi=110, layout="constrained")
axes.hist(np.ravel(drawn), 80, range=(-1, 1), density=True, color="0.8", label=f"{DRAWS:,} samples")
axes.plot(drawn[order, 0], jnp.exp(log_prob)[order], color=COLORS[0], label=r"$\pi_\phi(a|s)$")
axes.set(xlabel="a", ylabel="density", title=r"tanh of N(0.5, 1)", ylim=(0, 1.6))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The formula with $\operatorname{arctanh}$ is inaccurate near $|a| = 1$, so the library computes
# $\log \pi$ from $u$. Elsewhere both agree:

# %%
epsilon = jax.random.normal(jax.random.key(4), batch.action.shape)
action = f(phi, epsilon, batch.obs)
mean, log_std = actor.apply(phi, batch.obs)
u = mean + jnp.exp(log_std) * epsilon
from_u = jax.scipy.stats.norm.logpdf(u, mean, jnp.exp(log_std)) - 2 * (jnp.log(2) - u - jax.nn.softplus(-2 * u))  # fmt: skip
inside = jnp.abs(action[:, 0]) < 0.99
error = jnp.abs(log_pi(phi, action, batch.obs) - from_u.sum(-1))[inside]
print(f"log pi two ways, |a| < 0.99: apart by {error.max():.1e} at most")
edge = squashed_gaussian(jnp.array([[8.0]]), jnp.array([[0.0]]))
sample, log_prob = edge.sample_and_log_prob(seed=jax.random.key(0))
print(
    f"a = {sample[0, 0]:.7f}: from u {log_prob[0]:.4f}, by inverting {edge.log_prob(sample)[0]:.4f}"
)

# %% [markdown]
# ## The actor: (4.21), (4.23) and (4.24)
#
# $$J_\pi(\phi) = \mathbb E_{s_t, \epsilon_t}\left[\alpha \log \pi_\phi(f_\phi(\epsilon_t; s_t) \mid s_t)
# - Q_\theta(s_t, f_\phi(\epsilon_t; s_t))\right], \qquad Q_\theta = \min_i Q_{\theta_i} \text{ (post, 4.3.1)}.$$


# %%
def J_pi(phi, epsilon, obs):
    action = f(phi, epsilon, obs)
    return losses.soft_actor(
        critics.apply(theta, obs, action), log_pi(phi, action, obs), alpha
    ).mean()


# %% [markdown]
# (4.21) is the same expectation over $a_t \sim \pi_\phi$; writing $a_t$ as $f_\phi(\epsilon_t; s_t)$ makes it
# differentiable. Its gradient is (4.24), in which both $\log \pi$ need the factor $\alpha$ (omitted in the
# post, as in the first paper, arXiv:1801.01290, where it is part of the rewards' scale):
#
# $$\nabla_\phi J_\pi = \alpha \nabla_\phi \log \pi_\phi(a_t \mid s_t) + \left(\alpha \nabla_a \log \pi_\phi(a_t \mid s_t)
# - \nabla_a Q_\theta(s_t, a_t)\right) \nabla_\phi f_\phi(\epsilon_t; s_t).$$
#
# Below it is computed term by term and compared with automatic differentiation and with finite
# differences along random directions in parameter space, in double precision.

# %%
with jax.enable_x64(True):
    double = partial(jax.tree.map, lambda x: jnp.asarray(x, jnp.float64))
    some = np.flatnonzero(inside)[:128]
    obs, noise, params = double((batch.obs[some], epsilon[some], phi))
    theta_32, theta = theta, double(theta)

    action, pull_back = jax.vjp(lambda phi: f(phi, noise, obs), params)
    grad_phi_log_pi = jax.grad(lambda phi: alpha * log_pi(phi, action, obs).mean())(params)
    grad_a_log_pi = jax.grad(lambda a: alpha * log_pi(params, a, obs).mean())(action)
    grad_a_q = jax.grad(lambda a: critics.apply(theta, obs, a).min(0).mean())(action)
    (through_a,) = pull_back(grad_a_log_pi - grad_a_q)
    by_hand = jax.tree.map(jnp.add, grad_phi_log_pi, through_a)  # (4.24)

    automatic = jax.grad(J_pi)(params, noise, obs)
    print(f"(4.24) by hand and automatic: apart by {apart(by_hand, automatic):.1e}")

    vector, restore = jax.flatten_util.ravel_pytree(params)
    slope, _ = jax.flatten_util.ravel_pytree(automatic)
    J = jax.jit(lambda v: J_pi(restore(v), noise, obs))
    for seed in range(3):
        direction = jax.random.normal(jax.random.key(seed), vector.shape)
        h = 1e-6
        numeric = (J(vector + h * direction) - J(vector - h * direction)) / (2 * h)
        print(
            f"direction {seed}: finite difference {numeric:+.8f}, automatic {slope @ direction:+.8f}"
        )
theta = theta_32

# %% [markdown]
# Why differentiate through the action? The alternative estimator, the score function of chapter 4,
# needs no $\nabla_a Q$ but has a higher variance. For one state and one Gaussian, estimates of
# $\partial J_\pi / \partial \mu$ from single samples:


# %%
def q_of(a):
    return -4 * (a - 0.4) ** 2


def objective(mu, epsilon):
    u = mu + 0.5 * epsilon
    log_prob = jax.scipy.stats.norm.logpdf(u, mu, 0.5) - jnp.log(1 - jnp.tanh(u) ** 2)
    return 0.2 * log_prob - q_of(jnp.tanh(u))


noise = jax.random.normal(jax.random.key(6), (DRAWS,))
pathwise = jax.vmap(jax.grad(objective), (None, 0))(0.0, noise)
value = jax.vmap(objective, (None, 0))(0.0, noise)
score = noise / 0.5 * value  # d log pi / d mu times the loss; the direct term is 0 on average
spread = {"through the action": pathwise, "score function": score}

figure, axes = plt.subplots(figsize=(6, 2.6), dpi=110, layout="constrained")
for color, (name, estimate) in zip(COLORS, spread.items(), strict=False):
    axes.hist(estimate, 120, range=(-20, 5), density=True, color=color, alpha=0.5, label=name)
    error = estimate.std() / np.sqrt(DRAWS)
    print(
        f"{name:19} mean {estimate.mean():+.4f} +- {error:.4f}, standard deviation {estimate.std():.2f}"
    )
axes.set(xlabel=r"one sample's estimate of $\partial J_\pi / \partial \mu$", ylabel="density")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The temperature: the post's section 4.2
#
# The effect of $\alpha$ depends on the scale of rewards, so a fixed one must be tuned for every task. A
# minimum entropy of the policy is easier to choose in advance. Therefore, maximise the return subject
# to an entropy of at least $\bar{\mathcal H}$:
#
# $$\max_\pi \mathbb E[r] \quad \text{subject to} \quad \mathcal H(\pi) \ge \bar{\mathcal H}
# \qquad\Longleftrightarrow\qquad \max_\pi \min_{\alpha \ge 0}\; \mathbb E[r] + \alpha\left(\mathcal H(\pi) - \bar{\mathcal H}\right).$$
#
# The inner minimum enforces the constraint: if it is violated, $\alpha \to \infty$ makes the objective
# arbitrarily small. For a fixed $\alpha$ the maximum over $\pi$ is the maximum entropy policy of chapter 5,
# $\pi^*_\alpha$. Exchanging the two (the problem is concave in the occupancy measure of $\pi$ and linear in $\alpha$) gives the
# dual, a convex function of the scalar $\alpha$,
#
# $$g(\alpha) = \max_\pi\, \mathbb E[r] + \alpha\left(\mathcal H(\pi) - \bar{\mathcal H}\right), \qquad
# g'(\alpha) = \mathcal H(\pi^*_\alpha) - \bar{\mathcal H},$$
#
# whose derivative is that of $J(\alpha) = \mathbb E_{a \sim \pi}[-\alpha \log \pi(a \mid s) - \alpha \bar{\mathcal H}]$
# for fixed $\pi$. Gradient descent on $J$, alternating with updates of $\pi$, is dual gradient descent:
# $\alpha$ increases while the entropy is below its target.
#
# An example with a closed form: $Q(a) = -(a - \mu)^2$ over the real line has $\pi^*_\alpha = \mathcal N(\mu, \alpha / 2)$, of
# entropy $\frac12 \log(\pi e \alpha)$, which is $\bar{\mathcal H}$ at $\alpha^* = e^{2 \bar{\mathcal H}} / (\pi e)$.

# %%
H = -1.0
exact = jnp.exp(2 * H) / (jnp.pi * jnp.e)


adam = optax.adam(0.01)  # as in SAC


def descend(carry, key):
    """One step of log alpha along -grad J, from 64 samples of the optimal policy for alpha."""
    log_alpha, adam_state = carry
    std = jnp.sqrt(jnp.exp(log_alpha) / 2)
    log_prob = jax.scipy.stats.norm.logpdf(std * jax.random.normal(key, (64,)), 0, std)
    slope = jax.grad(lambda x: losses.temperature(jnp.exp(x), log_prob, H).mean())(log_alpha)
    change, adam_state = adam.update(slope, adam_state)
    return (log_alpha + change, adam_state), jnp.exp(log_alpha)


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), dpi=110, layout="constrained")
alphas = jnp.linspace(1e-4, 0.06, 400)
# E[Q] = -alpha / 2 under N(mu, alpha / 2)
g = -alphas / 2 + alphas * (0.5 * jnp.log(jnp.pi * jnp.e * alphas) - H)
left.plot(alphas, g, color=COLORS[0])
left.axvline(exact, color="black", linestyle=":", label=r"$e^{2H} / (\pi e)$")
left.set(xlabel=r"$\alpha$", ylabel=r"$g(\alpha)$", title="the dual")
left.legend(frameon=False)
keys = jax.random.split(jax.random.key(7), 4_000)
for start, color in zip((0.001, 0.1, 1.0), COLORS, strict=False):
    first = jnp.log(start)
    _, path = jax.lax.scan(descend, (first, adam.init(first)), keys)
    right.semilogy(path, color=color, linewidth=0.9, label=f"from {start}")
    print(f"from {start:5}: alpha {path[-300:].mean():.5f} at the end; exact {exact:.5f}")
right.axhline(exact, color="black", linestyle=":")
right.set(xlabel="updates", ylabel=r"$\alpha$", title=r"descent on $J(\alpha)$")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# ## SAC on Pendulum
#
# Temperatures and learning rates are traced, so runs with different ones are lanes of one
# program: 32 seeds with a learned temperature and a few for each of two fixed ones (a learning rate of
# 0 for $\alpha$). To keep it short, there are fewer and smaller updates than in the preset, with a
# matching learning rate.

# %%
lanes = [*[(1.0, config.alpha_learning_rate)] * SEEDS, *[(0.03, 0.0)] * FEW, *[(1.0, 0.0)] * FEW]
start, rate = jnp.array(lanes).T
swept = config.replace(alpha=start, alpha_learning_rate=rate)
axes_of = jax.tree.map(lambda _: None, config).replace(alpha=0, alpha_learning_rate=0)
keys = jax.random.split(jax.random.key(10), len(lanes))
states, metrics = jax.jit(jax.vmap(prl.train, (0, axes_of)))(keys, swept)

play = jax.jit(jax.vmap(lambda s: prl.evaluate(jax.random.key(11), config, s, episodes=EPISODES)))
scores = np.asarray(play(states)).mean(1)
groups = {
    "automatic": slice(0, SEEDS),
    "fixed alpha = 0.03": slice(SEEDS, SEEDS + FEW),
    "fixed alpha = 1": slice(SEEDS + FEW, None),
}

# %% tags=["picture"]
figure, panels = plt.subplots(1, 3, figsize=(12, 3.4), dpi=100, layout="constrained")
for color, (label, lane) in zip(COLORS, groups.items(), strict=False):
    found = {name: np.asarray(values)[lane] for name, values in metrics.items()}
    for axes, name in zip(panels, ("returns", "entropy", "alpha"), strict=True):
        draw_curve(axes, *series(found, config, name, POINTS), {"color": color}, label)
    low, high = bootstrap_interval(scores[lane])
    print(
        f"{label:22} greedy return, IQM {iqm(scores[lane]):7.1f} [{low:.1f}, {high:.1f}],"
        f" worst seed {scores[lane].min():.1f}"
    )
panels[1].axhline(config.target_entropy_per_dim, color="black", linestyle=":", linewidth=1)
panels[2].set_yscale("log")
for axes, title in zip(
    panels,
    ("return while training", r"entropy (dotted: $\bar{H}$), nats", r"$\alpha$"),
    strict=True,
):
    axes.set(title=title, xlabel="environment steps")
    axes.grid(alpha=0.2)
panels[0].legend(frameon=False)
plt.show()

# %% [markdown]
# With the learned temperature the entropy reaches its target early in training and stays there.
# With fixed ones it is arbitrary: far below the target for 0.03, near 0 for 1. All three learn
# Pendulum: with 0.03 most seeds have the same returns, with 1 they are a little lower. The advantage is
# not the score but that no search is needed; for another scale of rewards, both fixed temperatures would
# have other effects. A worst seed far below the average had not converged.
#
# ## One critic or two (post, 4.3.1)
#
# A variant is another function. `sac` takes its critics as a part, and a single critic is
# `networks.Critics(..., 1)`. To see the effect of the minimum of two, compare the values of initial
# states and actions with the soft returns that follow: the discounted sum of rewards and entropies,
# over episodes long enough for $\gamma^t$ to vanish (600 steps, without a time limit).


# %%
def one_critic(config, space):
    return networks.Critics(networks.torso(space, config.hidden_sizes, config.activation), 1)


single = config.replace(algorithm=partial(sac.sac, critics=one_critic))
single_states, _ = jax.jit(jax.vmap(prl.make_train(single)))(
    jax.random.split(jax.random.key(10), SINGLE)
)
twins = jax.tree.map(lambda x: x[:SEEDS], states)
long = prl.envs.make(config.env).default_params.replace(max_steps_in_episode=10_000)


def said_and_true(key, config, state):
    """Means over initial states of min_i Q_i(s, a), and of the soft return that follows."""
    endless = config.replace(env_params=long)
    played, _ = prl.rollout_episodes(
        key, endless, state, EPISODES, policy=prl.exploring_policy, max_steps=600
    )
    q = prl.q_values(config, state, played.obs[0], played.action[0] / 2)
    pi = squashed_gaussian(*actor.apply(state.agent.actor.params, played.obs.reshape(-1, 3)))
    _, log_prob = pi.sample_and_log_prob(seed=key)
    bonus = -jnp.exp(state.agent.log_alpha.params) * log_prob.reshape(played.reward.shape)
    discounts = config.gamma ** jnp.arange(600)
    rewards, entropies = discounts @ played.reward, discounts[1:] @ bonus[1:]
    return q.mean(), (rewards + entropies).mean()


above = {}
for label, made, found in (
    ("two critics", config, twins),
    ("one critic", single, single_states),
):
    check = jax.vmap(lambda s, c=made: said_and_true(jax.random.key(12), c, s))
    said, true = (np.asarray(x) for x in jax.jit(check)(found))
    above[label] = said - true
    low, high = bootstrap_interval(above[label])
    of_kind = jax.vmap(lambda s, c=made: prl.evaluate(jax.random.key(11), c, s, EPISODES))
    greedy = iqm(np.asarray(jax.jit(of_kind)(found)).mean(1))
    print(
        f"{label:11} says {iqm(said):6.1f}, true {iqm(true):6.1f}: above by {iqm(said - true):+5.1f}"
        f" [{low:+.1f}, {high:+.1f}]; greedy return {greedy:.1f} ({len(said)} seeds)"
    )
low, high = stratified_interval(list(above.values()), lambda two, one: iqm(one) - iqm(two))
print(f"one critic says more than two by [{low:+.1f}, {high:+.1f}], for what is true")

# %% [markdown]
# The minimum of two is well below the true value, one critic is above it, by about half as much, and
# both have the same returns: on Pendulum neither bias does harm. The second critic prevents that of
# chapter 2 at the cost of underestimation.
#
# ## Discrete actions
#
# With finitely many actions the expectations over $\pi$ are sums, without reparameterisation or
# Gaussians: $V(s) = \sum_a \pi(a \mid s)\,(Q(s, a) - \alpha \log \pi(a \mid s))$ is
# `losses.discrete_soft_value`. The preset's target entropy is 0.7 of $\log |\mathcal A|$.

# %%
discrete = prl.preset("discrete_sac", "CartPole-v1").replace(total_steps=CARTPOLE_STEPS)
keys = jax.random.split(jax.random.key(13), FEW)
states, metrics = jax.jit(jax.vmap(prl.make_train(discrete)))(keys)
final = jax.jit(jax.vmap(lambda s: prl.evaluate(jax.random.key(14), discrete, s, EPISODES)))(states)
scores = np.asarray(final).mean(1)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), dpi=110, layout="constrained")
draw_curve(left, *series(metrics, discrete, "returns", POINTS), {"color": COLORS[0]}, "return")
draw_curve(right, *series(metrics, discrete, "entropy", POINTS), {"color": COLORS[1]}, "entropy")
aim = discrete.target_entropy_ratio * np.log(2)
right.axhline(aim, color="black", linestyle=":", label="target")
for axes, title in ((left, "discrete SAC on CartPole: return"), (right, "entropy, nats")):
    axes.set(title=title, xlabel="environment steps")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(alpha=0.2)
    axes.legend(frameon=False)
plt.show()
low, high = bootstrap_interval(scores)
print(
    f"greedy return, IQM {iqm(scores):.0f} [{low:.0f}, {high:.0f}], worst seed {scores.min():.0f}"
)

# %% [markdown]
# In this short run it learns to balance for some hundreds of steps, and the entropy, after falling below
# its target, converges to it (the preset takes several times as many steps).
#
# ## Exercise
#
# Scale Pendulum's rewards by 10 and by 0.1, with a wrapper like `limits_end_episodes` of chapter 3.
# Which of the three temperatures above still learns? Then set `target_entropy_per_dim` to 0 and to
# -3, and observe `alpha`.
#
# **What to read next:** [7. Forks for research](07_research_forks.ipynb): custom parts, sweeps, several
# devices, saving and resuming. In the code: `purejaxrl_sac/agents/sac.py`, and `sac_family.py` for its
# variants.
