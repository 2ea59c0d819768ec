# %% [markdown]
# # 5. Maximum entropy
#
# This chapter follows section 4 of the post "From Q-learning to Soft Actor Critic" up to the end of
# 4.1.1, with its equation numbers: entropy, the soft Bellman backup, soft policy iteration (Lemmas 1
# and 2, Theorem 1), the temperature $\alpha$, and energy-based policies.
#
# On finite MDPs all of it can be computed exactly, so every theorem is shown without sampling noise.
# Then a multimodal policy is learned for continuous actions.

# %%
# %matplotlib inline
import itertools
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import purejaxrl_sac as prl
from purejaxrl_sac import losses, mdp
from purejaxrl_sac.envs import multigoal
from purejaxrl_sac.experiment.pictures.plot import COLORS
from purejaxrl_sac.mdp import dynamic_programming as dp

SHORT = os.environ.get("PUREJAXRL_SAC_NOTEBOOKS") == "short"  # smaller numbers, for tests
MDPS, SAMPLES, MOVES = (20, 10_000, 200) if SHORT else (2_000, 1_000_000, 2_000)
SEEDS, STEPS, EPISODES = (2, 1_200, 20) if SHORT else (2, 20_000, 200)
GAMMA, ALPHA = 0.9, 0.5

# %% [markdown]
# ## The objective and the entropy (post, 4.2 and 4.6 to 4.9)
#
# $$\pi^* = \arg\max_\pi \sum_t \mathbb E\left[r(s_t, a_t) + \alpha \mathcal H(\pi(\cdot \mid s_t))\right],
# \qquad \mathcal H(\pi(\cdot \mid s)) = -\sum_a \pi(a \mid s) \log \pi(a \mid s)
# = -\mathbb E_{a \sim \pi}[\log \pi(a \mid s)].$$
#
# By the last equality, entropy can be estimated from sampled actions:

# %%
pi = jnp.array([0.7, 0.2, 0.1])
action = jax.random.choice(jax.random.key(0), 3, (SAMPLES,), p=pi)
print(f"sum:          {losses.entropy(pi):.4f} nats, of log 3 = {jnp.log(3):.4f} at most")
print(f"{SAMPLES:,} draws: {-jnp.log(pi[action]).mean():.4f}")

# %% [markdown]
# ## The soft Bellman backup (post, 4.3, 4.4 and 4.10 to 4.15)
#
# $$\mathcal T_\pi Q(s, a) = r(s, a) + \gamma\, \mathbb E_{s'}[V(s')], \qquad
# V(s) = \mathbb E_{a \sim \pi}\left[Q(s, a) - \alpha \log \pi(a \mid s)\right].$$
#
# The post defines an alternative with the entropy in the reward,
# $r_{\text{soft}}(s, a) = r(s, a) - \alpha \log \pi(a \mid s)$ (4.13), without a derivation. Let
# $\tilde Q$ be the ordinary value of $\pi$ for that reward. Then
# $\tilde Q = Q_{\text{soft}} - \alpha \log \pi$: insert it into the ordinary backup,
#
# $$\tilde Q(s, a) = r(s, a) - \alpha \log \pi(a \mid s) + \gamma\, \mathbb E_{s'} \mathbb E_{a' \sim \pi}
# [\underbrace{Q_{\text{soft}}(s', a') - \alpha \log \pi(a' \mid s')}_{\tilde Q(s', a')}],$$
#
# and subtracting $-\alpha \log \pi(a \mid s)$ from both sides gives (4.12). The two differ by the
# entropy term of the first action, which is given in $Q(s, a)$; the values of states are equal.
# Numerically, on a random MDP:

# %%
world = mdp.garnet(jax.random.key(1))  # 20 states, 4 actions, nothing terminal
pi = jax.random.dirichlet(jax.random.key(2), jnp.ones(4), (20,))
q_soft = dp.backup(world, GAMMA, dp.soft_policy_evaluation(world, GAMMA, ALPHA, pi))

paid_for_entropy = world.replace(R=world.R - ALPHA * jnp.log(pi)[:, :, None])
q_tilde = dp.backup(paid_for_entropy, GAMMA, dp.policy_evaluation(paid_for_entropy, GAMMA, pi))

apart = jnp.abs(q_tilde - (q_soft - ALPHA * jnp.log(pi))).max()
print(f"largest difference of Q~ and Q - alpha log pi: {apart:.1e}")

# %% [markdown]
# ## Lemma 1: soft policy evaluation converges
#
# Repeated application of $\mathcal T_\pi$ converges to the soft value of $\pi$ from any $Q^0$. The
# entropy terms cancel in a difference, so that $\mathcal T_\pi$ is a $\gamma$-contraction like the hard
# operator. Left: five initial values, and the bound.
#
# ## Lemma 2: soft policy improvement improves
#
# $$\pi_{\text{new}} = \arg\min_{\pi'} D_{\text{KL}}\!\left(\pi' \,\Big\|\,
# \tfrac1Z \exp(\tfrac1\alpha Q^{\pi_{\text{old}}})\right) = \text{softmax}(Q^{\pi_{\text{old}}} / \alpha)
# \quad\Longrightarrow\quad Q^{\pi_{\text{new}}}(s, a) \ge Q^{\pi_{\text{old}}}(s, a) \text{ everywhere.}$$
#
# Right: the smallest and the largest change over all $(s, a)$, for thousands of random MDPs and
# policies, near the optimal one and far from it. None is negative.


# %%
def improvement(key):
    """The smallest and largest of Q_new - Q_old over (s, a), and the largest |Q|."""
    key_mdp, key_pi, key_share = jax.random.split(key, 3)
    made = mdp.garnet(key_mdp)
    best = dp.soft_policy_improvement(dp.soft_value_iteration(made, GAMMA, ALPHA), ALPHA)
    share = 10 ** jax.random.uniform(key_share, minval=-3, maxval=0)  # how far from the best
    old = (1 - share) * best + share * jax.random.dirichlet(key_pi, jnp.ones(4), (20,))
    q_old = dp.backup(made, GAMMA, dp.soft_policy_evaluation(made, GAMMA, ALPHA, old))
    new = dp.soft_policy_improvement(q_old, ALPHA)
    q_new = dp.backup(made, GAMMA, dp.soft_policy_evaluation(made, GAMMA, ALPHA, new))
    return (q_new - q_old).min(), (q_new - q_old).max(), jnp.abs(q_new).max()


least, most, size = jax.jit(jax.vmap(improvement))(jax.random.split(jax.random.key(3), MDPS))
print(f"smallest change in {MDPS:,} MDPs: {least.min():+.1e}, of values up to {size.max():.0f}")
print(f"MDPs in which every Q(s, a) rose by more than 2e-5: {(least > 2e-5).sum():,} of {MDPS:,}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), dpi=110, layout="constrained")
for start in (-20, -5, 0, 5, 20):
    q, gaps = jnp.full((20, 4), float(start)), []
    for _ in range(100):
        gaps.append(float(jnp.abs(q - q_soft).max()))
        q = dp.soft_expectation(world, GAMMA, ALPHA, pi, q)
    left.semilogy(gaps, color=COLORS[0], alpha=0.7)
    left.semilogy(gaps[0] * GAMMA ** np.arange(100), "k:", linewidth=0.8)
left.set(
    xlabel=r"applications of $T_\pi$", ylabel=r"$\|Q - Q^\pi_{soft}\|_\infty$", ylim=(1e-5, None)
)
left.set_title(r"Lemma 1: five initial functions (dotted: $\gamma^k$)", fontsize="medium")
right.loglog(most, jnp.maximum(least, 1e-6), ".", color=COLORS[2], markersize=3, alpha=0.4)
right.set(xlabel=r"largest change of $Q(s, a)$", ylabel="smallest change")
right.set_title("Lemma 2: everything rises", fontsize="medium")
plt.show()

# %% [markdown]
# The softmax minimises the divergence: mixing it with any other policy increases the divergence.

# %%
target = dp.soft_policy_improvement(q_soft, ALPHA)
others = jax.random.dirichlet(jax.random.key(4), jnp.ones(4), (1_000, 20))


def divergence(pi):
    """KL(pi || exp(Q / alpha) / Z), of each state."""
    return (pi * (jnp.log(pi) - jax.nn.log_softmax(q_soft / ALPHA))).sum(-1)


print(f"KL of the softmax itself: {jnp.abs(divergence(target)).max():.1e}")
for share in (0.5, 0.1):
    mixed = (1 - share) * target + share * others
    least = jax.vmap(divergence)(mixed).min()
    print(f"smallest KL of 20,000 mixtures with {share:.0%} of something else: {least:.1e}")

# %% [markdown]
# ## Theorem 1: soft policy iteration converges to the optimal policy
#
# Alternate evaluation and improvement. From any policy the soft values increase in every state and
# iteration (up to rounding, once they are optimal), and converge to the fixed point of the soft optimality operator
# $Q(s, a) = r + \gamma\, \mathbb E\left[\alpha \log \sum_{a'} \exp(Q(s', a') / \alpha)\right]$, which is
# computed here independently of any policy.

# %%
q_best = dp.soft_value_iteration(world, GAMMA, ALPHA)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), dpi=110, layout="constrained")
smallest_rise = jnp.inf
for seed, color in zip(range(5), COLORS, strict=False):
    pi = jax.random.dirichlet(jax.random.key(seed), 0.2 * jnp.ones(4), (20,)) + 1e-6
    pi, qs = pi / pi.sum(-1, keepdims=True), []
    for _ in range(6):
        qs.append(dp.backup(world, GAMMA, dp.soft_policy_evaluation(world, GAMMA, ALPHA, pi)))
        pi = dp.soft_policy_improvement(qs[-1], ALPHA)
    smallest_rise = min(smallest_rise, *(float((b - a).min()) for a, b in itertools.pairwise(qs)))
    left.plot([q.mean() for q in qs], "o-", color=color, markersize=3)
    right.semilogy([jnp.abs(q - q_best).max() + 1e-7 for q in qs], "o-", color=color, markersize=3)
left.axhline(q_best.mean(), color="black", linewidth=0.8, linestyle="--", label="best")
left.set(xlabel="round", ylabel=r"mean of $Q^\pi_{soft}$", title="five initial policies")
left.legend(frameon=False)
right.set(xlabel="round", ylabel=r"$\|Q^\pi_{soft} - Q^*_{soft}\|_\infty$", title="Theorem 1")
plt.show()
print(
    f"smallest rise of any Q(s, a) in any round: {smallest_rise:.1e} (values near {q_best.mean():.1f})"
)

# %% [markdown]
# ## The temperature: from hard to uniform (post, 4.16)
#
# $\pi^*(a \mid s) = \frac1{Z(s)} \exp(\frac1\alpha Q(s, a))$. For $\alpha \to 0$ this is the greedy policy
# of chapter 1, for $\alpha \to \infty$ it is uniform. The figure shows the entropy as a fraction of
# $\log |\mathcal A|$, and the value of the policy (without entropy), scaled so that the uniform policy has 0 and
# the optimal one 1. A small temperature costs almost no reward.

# %%
alphas = jnp.logspace(-2.5, 2, 40)
soft_q = jax.vmap(lambda alpha: dp.soft_value_iteration(world, GAMMA, alpha))(alphas)
policies = jax.vmap(dp.soft_policy_improvement)(soft_q, alphas)
entropy = losses.entropy(policies).mean(-1) / jnp.log(4)
earned = jax.vmap(lambda pi: dp.policy_evaluation(world, GAMMA, pi).mean())(policies)
uniform = dp.policy_evaluation(world, GAMMA, dp.uniform_policy(world)).mean()
best = dp.value_iteration(world, GAMMA).max(-1).mean()
share = (earned - uniform) / (best - uniform)

figure, axes = plt.subplots(figsize=(6.4, 3.2), dpi=110, layout="constrained")
label = r"entropy / $\log |\mathcal{A}|$, mean over states"
axes.semilogx(alphas, entropy, color=COLORS[1], label=label)
axes.semilogx(alphas, share, color=COLORS[0], label="earned: 0 is uniform, 1 the best")
axes.set(
    xlabel=r"temperature $\alpha$ (rewards have a standard deviation of 1)", ylim=(-0.02, 1.02)
)
axes.legend(frameon=False)
plt.show()
for alpha in (0.1, 1.0):
    i = int(jnp.abs(alphas - alpha).argmin())
    shown = f"entropy {entropy[i]:.2f} of its maximum, earns {share[i]:.3f} of the way"
    print(f"alpha {alphas[i]:.2f}: {shown}")

# %% [markdown]
# A caveat: if episodes terminate, entropy is only received until termination, so that every additional
# step has a value of up to $\alpha \log |\mathcal A|$. On FrozenLake with $\alpha = 1$ this is 1.39 per step, more
# than the reward of 1 at the goal, and the optimal policy avoids termination instead of reaching the
# goal.

# %%
lake = mdp.frozen_lake()
figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.2), dpi=110, layout="constrained")
for axes, alpha in zip(panels, (0.003, 0.1, 1.0), strict=True):
    pi = dp.soft_policy_improvement(dp.soft_value_iteration(lake, 0.99, alpha), alpha)
    arrives = dp.finite_horizon_evaluation(lake, 1.0, pi, 100)[0]  # the reward is 1 at the goal
    axes.set_title(rf"$\alpha$ = {alpha}: arrives {arrives:.0%}")
    for (row, column), chances, end in zip(lake.grid.position, pi, lake.terminal, strict=True):
        letter = lake.grid.rows[row][column]
        if end or letter == "S":
            axes.text(column, row, letter, color="0.5", ha="center", va="center", fontsize=13)
        if not end:
            down, right = (np.array(lake.grid.moves) * np.asarray(chances)[:, None]).T
            axes.quiver([column] * 4, [row] * 4, 0.5 * right, 0.5 * down, angles="xy", scale=1,
                        scale_units="xy", color=COLORS[0], width=0.012)  # fmt: skip
    axes.set(xlim=(-0.5, 3.5), ylim=(3.5, -0.5), aspect="equal", xticks=[], yticks=[])
plt.show()
print("arrows are as long as their actions are likely; share of episodes that arrive in 100 steps")

# %% [markdown]
# ## Energy-based policies
#
# With continuous actions, $\exp(\frac1\alpha Q)$ can have any shape. Consider a value with two modes, as
# in the post's figure of a multimodal $Q$. The optimal action is one of them. The closest Gaussian (in
# the divergence of 4.18) covers one mode only. Samples moved by Stein variational gradient descent,
# `losses.svgd_direction`, cover both: they follow $\nabla_a Q / \alpha$ and repel each other.


# %%
def two_peaks(a):
    return jnp.log(0.6 * jnp.exp(-20 * (a - 0.5) ** 2) + 0.5 * jnp.exp(-20 * (a + 0.5) ** 2) + 1e-6)


grid = jnp.linspace(-1.2, 1.2, 601)
width = grid[1] - grid[0]
density = jnp.exp(two_peaks(grid))  # alpha = 1
density /= density.sum() * width


def divergence_of(mean, std):
    """KL(N(mean, std^2) || exp(Q) / Z), on the grid."""
    gaussian = jnp.exp(-0.5 * ((grid - mean) / std) ** 2) + 1e-30
    gaussian /= gaussian.sum() * width
    return (gaussian * (jnp.log(gaussian) - jnp.log(density))).sum() * width


means, stds = jnp.meshgrid(jnp.linspace(-0.8, 0.8, 81), jnp.linspace(0.05, 0.8, 76))
found = jax.vmap(divergence_of)(means.ravel(), stds.ravel())
mean, std = means.ravel()[found.argmin()], stds.ravel()[found.argmin()]

particles = 0.2 * jax.random.normal(jax.random.key(5), (200, 1))
score = jax.vmap(jax.grad(lambda a: two_peaks(a[0])))


def move(particles, _):
    return particles + 0.02 * losses.svgd_direction(particles, score(particles)), None


particles, _ = jax.lax.scan(move, particles, length=MOVES)
right_share = (particles > 0).mean()
true_share = density[grid > 0].sum() * width

figure, axes = plt.subplots(figsize=(6.4, 3.2), dpi=110, layout="constrained")
gaussian = jnp.exp(-0.5 * ((grid - mean) / std) ** 2) / (std * jnp.sqrt(2 * jnp.pi))
axes.fill_between(grid, density, color="0.85", label=r"$\exp Q / Z$")
axes.plot(grid, gaussian, color=COLORS[1], label="nearest Gaussian")
axes.hist(
    np.ravel(particles),
    48,
    range=(-1.2, 1.2),
    density=True,
    color=COLORS[0],
    alpha=0.5,
    label="SVGD",
)
axes.axvline(grid[density.argmax()], color="black", linestyle=":", label="the best action")
axes.set(xlabel="a", ylabel="density")
axes.legend(frameon=False)
plt.show()
print(f"on the right peak: {true_share:.2f} of exp Q, {right_share:.2f} of the SVGD samples")

# %% [markdown]
# ## Four goals, one policy
#
# The point mass of Haarnoja et al. (2017, arXiv:1702.08165) starts between four equally good goals.
# Soft Q-learning (`continuous_soft_q`) learns $Q$ and a sampling network for $\exp(Q / \alpha)$, trained
# with `losses.svgd_direction`. For comparison: the mean action of SAC with a small fixed temperature,
# which is deterministic and has one action at the exact centre.

# %%
configs = {
    "soft Q-learning": prl.preset("continuous_soft_q", "multi_goal").replace(total_steps=STEPS),
    "SAC, its mean": prl.preset("sac", "multi_goal").replace(
        total_steps=STEPS // 2,
        warmup_steps=STEPS // 8,
        capacity=STEPS,
        batch_size=64,
        alpha=0.1,
        alpha_learning_rate=0.0,
    ),
}
keys = jax.random.split(jax.random.key(0), SEEDS)
states = {name: jax.jit(jax.vmap(prl.make_train(c)))(keys)[0] for name, c in configs.items()}

# %% tags=["picture"]
middle = multigoal.Params(start_std=0.0)
figure, panels = plt.subplots(1, 3, figsize=(12, 3.9), dpi=100, layout="constrained")
for axes, (name, config) in zip(panels[::2], configs.items(), strict=True):
    for seed in range(SEEDS):
        state = prl.seed_state(states[name], seed)
        played, running = prl.rollout_episodes(
            jax.random.key(1), config.replace(env_params=middle), state, EPISODES
        )
        path = jnp.where(running[..., None], played.next_obs, jnp.nan)
        goal = multigoal.goal_reached(played.next_obs).max(0, where=running, initial=-1)
        counts = [int((goal == g).sum()) for g in range(4)]
        print(f"{name}, seed {seed}: right, left, top, bottom {counts} of {EPISODES}")
        if seed == 0:
            for n in range(min(EPISODES, 60)):
                x, y = np.concatenate([[[0, 0]], path[:, n]]).T
                axes.plot(x, y, color=COLORS[int(goal[n])], linewidth=0.8, alpha=0.6)
    axes.plot(*multigoal.GOALS.T, "k*", markersize=9)
    axes.set(title=name, xlim=(-6.5, 6.5), ylim=(-6.5, 6.5), aspect="equal", xlabel="x", ylabel="y")

name = "soft Q-learning"
state, config = prl.seed_state(states[name], 0), configs[name]
x, y = jnp.meshgrid(jnp.linspace(-1, 1, 61), jnp.linspace(-1, 1, 61))
actions = jnp.stack([x.ravel(), y.ravel()], -1)
q = prl.q_values(config, state, jnp.zeros_like(actions), actions).reshape(x.shape)
drawn = prl.policy(config, state)(jax.random.key(2), jnp.zeros((300, 2)))
shown = panels[1].contourf(x, y, q, 20)
panels[1].plot(*drawn.T, "w.", markersize=3)
panels[1].set(title="Q(0, a), and actions drawn", aspect="equal", xlabel="$a_x$", ylabel="$a_y$")
figure.colorbar(shown, ax=panels[1], shrink=0.85)
plt.show()

# %% [markdown]
# From the exact centre soft Q-learning reaches all four goals with both seeds, although not equally
# often (training is short, and the sampler lags behind $Q$), while the mean action of SAC leads to the
# same one in all episodes of a seed. The middle figure shows why: $Q$ has four modes, and the sampled actions cover all
# of them.
#
# ## Exercise
#
# Lower the temperature of `continuous_soft_q` on `multi_goal` from 10 to 1 and to 0.1, and count the
# goals again. At which temperature is the policy no longer multimodal, and how does the metric
# `soft_value` change? Then predict the effect of a very large temperature from the caveat above, and
# test it.
#
# **What to read next:** sampling from $\exp(Q / \alpha)$ is expensive. Soft Actor-Critic projects it
# onto Gaussians instead: [06_sac.ipynb](06_sac.ipynb). In the code:
# `purejaxrl_sac/agents/continuous_soft_q.py` and `purejaxrl_sac/losses/`.
