"""Train several seeds of SBX until they solve an environment; the argument is one JSON request.

Runs in SBX's virtual environment, with the settings of RL Zoo, and imports only `phases` of this
project. The mean return of each seed's greedy policy is written to standard output as JSON, with
the version of jax and the device.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import sbx
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from scripts import phases

ENVS = {"CartPole-v1": 8, "Pendulum-v1": 1}
SCHEDULE = 100_000  # steps, after which schedules are zero


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


def made(work, seed):
    """A model whose schedules are those of RL Zoo, however often it is asked to learn."""
    settings, model = dict(SETTINGS[work]), None

    def scheduled(schedule):
        return lambda _: schedule(max(0, 1 - model.num_timesteps / SCHEDULE) if model else 1.0)

    for name, value in settings.items():
        settings[name] = scheduled(value) if callable(value) else value
    envs = make_vec_env(work[1], n_envs=ENVS[work[1]], seed=seed)
    model = getattr(sbx, work[0].upper())("MlpPolicy", envs, seed=seed, **settings)
    return model


def solve(work, steps, goal, seeds, root, episodes):
    """Train all seeds from one number of steps to the next, until they solve the environment.

    Returns:
        The mean greedy returns of the seeds, the steps, and the seconds of all evaluations.
    """
    models = [made(work, root * seeds + i) for i in range(seeds)]
    many = make_vec_env(work[1], n_envs=64, seed=root + 1_000)
    aside = 0.0
    for count in steps:
        for model in models:
            taken = model.num_timesteps
            model.learn(count - taken, reset_num_timesteps=taken == 0)
        start_time = time.perf_counter()
        found = [evaluate_policy(model, many, episodes, deterministic=True) for model in models]
        scores = [float(mean) for mean, _ in found]
        aside += time.perf_counter() - start_time
        middle = sorted(scores)[seeds // 4 : seeds - seeds // 4]  # their mean is the IQM
        if sum(middle) / len(middle) >= goal:
            break
    return scores, models[0].num_timesteps, aside


def main():
    request = json.loads(sys.argv[1])
    work = request.pop("algorithm"), request.pop("environment")
    scores, steps, aside = solve(work, **request)
    answer = {"scores": scores, "steps": steps, "aside": aside}
    print(json.dumps({**answer, **phases.origin()}))


if __name__ == "__main__":
    main()
