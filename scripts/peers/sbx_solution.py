"""Train several seeds of SBX, one after the other, and evaluate them; the argument is JSON.

Runs in SBX's virtual environment, with the settings of RL Zoo. The mean return of each seed's
greedy policy is written to standard output as JSON.
"""

import json
import sys
from importlib.metadata import version

import sbx
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

ENVS = {"CartPole-v1": 8, "Pendulum-v1": 1}


def linear(value):
    """A schedule that falls linearly to zero."""
    return lambda remaining: remaining * value


SETTINGS = {
    ("ppo", "CartPole-v1"): {
        "n_steps": 32,
        "batch_size": 256,
        "gae_lambda": 0.8,
        "gamma": 0.98,
        "n_epochs": 20,
        "ent_coef": 0.0,
        "learning_rate": linear(1e-3),
        "clip_range": linear(0.2),
    },
    ("sac", "Pendulum-v1"): {"learning_rate": 1e-3},
}


def score(request, seed):
    """The mean greedy return of one seed after training."""
    work = request["algorithm"], request["environment"]
    envs = make_vec_env(work[1], n_envs=ENVS[work[1]], seed=seed)
    model = getattr(sbx, work[0].upper())("MlpPolicy", envs, seed=seed, **SETTINGS[work])
    model.learn(request["steps"])
    many = make_vec_env(work[1], n_envs=16, seed=seed + 1_000)
    return float(evaluate_policy(model, many, request["episodes"], deterministic=True)[0])


def main():
    request = json.loads(sys.argv[1])
    first = request["root"] * request["seeds"]
    scores = [score(request, first + i) for i in range(request["seeds"])]
    print(json.dumps({"library": f"sbx {version('sbx-rl')}", "scores": scores}))


if __name__ == "__main__":
    main()
