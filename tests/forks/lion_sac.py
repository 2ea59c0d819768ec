"""SAC whose actor and critics are trained by Lion with weight decay, on a cosine schedule."""

from functools import partial

import optax

import purejaxrl_sac as prl


def lion(config: prl.SACConfig) -> optax.GradientTransformation:
    updates = config.iterations * config.num_updates
    schedule = optax.cosine_decay_schedule(1.0, updates)
    return optax.chain(
        optax.lion(config.learning_rate, weight_decay=1e-3), optax.scale_by_schedule(schedule)
    )


lion_sac = partial(prl.sac, actor_optimizer=lion, critic_optimizer=lion)
