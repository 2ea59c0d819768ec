"""rejax's training with the settings of a request; imported in rejax's virtual environment."""

import jax


def create(algorithm, hidden_sizes=(64, 64), **settings):
    """An algorithm of rejax without the evaluation before training.

    Args:
        algorithm: dqn, sac, ppo or pqn.
        hidden_sizes: of all its networks.
        settings: fields of rejax's configuration.
    """
    import rejax

    if algorithm == "dqn":
        settings |= {"ddqn": False, "agent_kwargs": {"activation": "relu"}}
    kind = getattr(rejax, algorithm.upper())
    created = kind.create(skip_initial_evaluation=True, **settings)
    networks = {name: getattr(created, name, None) for name in ("agent", "actor", "critic")}
    resized = {
        name: network.clone(hidden_layer_sizes=tuple(hidden_sizes))
        for name, network in networks.items()
        if network is not None
    }
    return created.replace(**resized)


def work(request):
    """Training of one or more seeds, with one environment, one step and one update per iteration.

    Args:
        request: algorithm, env, seeds, iterations, warmup, capacity and batch_size.

    Returns:
        A function and its arguments.
    """
    steps = request["iterations"] + request["warmup"]
    algorithm = create(
        request["algorithm"],
        env=request["env"],
        num_envs=1,
        total_timesteps=steps,
        eval_freq=steps,
        fill_buffer=request["warmup"],
        buffer_size=request["capacity"],
        batch_size=request["batch_size"],
        learning_rate=1e-3,
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())

    def train(key):
        return algorithm.train(key)[0]

    return over_seeds(train, request["seeds"])


def over_seeds(train, seeds):
    """The training of one seed, or of several, and its argument."""
    found = keys(seeds)
    return (train, (found[0],)) if seeds == 1 else (jax.vmap(train), (found,))


def keys(seeds):
    """The keys of all seeds."""
    return jax.random.split(jax.random.PRNGKey(0), seeds)
