"""Train several seeds of rejax and evaluate them; the argument is one JSON request.

Runs in rejax's virtual environment, with the settings of its repository's `configs/gymnax`, and
imports only `phases` of this project. The mean return of each seed's greedy policy is written to
standard output as JSON, with the version of jax and the device.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import jax.numpy as jnp
import rejax
from rejax.evaluate import evaluate

from scripts import phases

SETTINGS = {
    ("ppo", "CartPole-v1"): {
        "agent_kwargs": {"activation": "tanh"},
        "num_envs": 5,
        "num_steps": 100,
        "num_epochs": 5,
        "num_minibatches": 5,
        "learning_rate": 7.5e-4,
        "max_grad_norm": 0.5,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_eps": 0.2,
        "ent_coef": 0.01,
        "vf_coef": 0.5,
    },
    ("sac", "Pendulum-v1"): {
        "agent_kwargs": {"activation": "swish"},
        "num_envs": 1,
        "buffer_size": 10_000,
        "fill_buffer": 256,
        "batch_size": 256,
        "learning_rate": 0.01,
        "num_epochs": 1,
        "gamma": 0.99,
        "polyak": 0.98,
        "target_entropy_ratio": None,
        "normalize_observations": True,
    },
}


def greedy(algorithm, state):
    """The most probable action, or tanh of the Gaussian's mean; rejax's own policies sample."""

    def act(obs, key):
        if algorithm.normalize_observations:
            obs = algorithm.normalize_obs(state.obs_rms_state, obs)
        actor = algorithm.actor
        mode = actor.apply(state.actor_ts.params, obs[None], method="_action_dist").mode()[0]
        if hasattr(actor, "bij"):
            mode = actor.action_loc + jnp.tanh(mode) * actor.action_scale
        return jnp.squeeze(mode)

    return act


def main():
    request = json.loads(sys.argv[1])
    work = request["algorithm"], request["environment"]
    steps, episodes = request["steps"], request["episodes"]

    def returns(algorithm, state, key):
        act = greedy(algorithm, state)
        return evaluate(act, key, algorithm.env, algorithm.env_params, episodes)[1]

    algorithm = getattr(rejax, work[0].upper()).create(
        env=work[1],
        total_timesteps=steps,
        eval_freq=steps,
        skip_initial_evaluation=True,
        **SETTINGS[work],
    )
    algorithm = algorithm.replace(eval_callback=returns)
    keys = jax.random.split(jax.random.PRNGKey(request["root"]), request["seeds"])
    _, found = jax.jit(jax.vmap(algorithm.train))(keys)  # [seeds, 1, episodes]
    answer = {"scores": found.mean((1, 2)).tolist(), "steps": steps, "aside": 0.0}
    print(json.dumps({**answer, **phases.origin()}))


if __name__ == "__main__":
    main()
