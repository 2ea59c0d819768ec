"""The equations, one function each: no networks, no loops, no optimisers.

"Post" is "From Q-learning to Soft Actor Critic". Of its numbers, those of two parts, such as 4.19,
are equations; those of three, such as 4.3.2, and those that are called so are sections.
"""

from purejaxrl_sac.losses.distributional import (
    categorical_projection,
    cross_entropy,
    quantile_huber,
)
from purejaxrl_sac.losses.soft import (
    discrete_soft_value,
    entropy,
    importance_soft_value,
    log_sum_exp,
    munchausen,
    soft_actor,
    soft_critic,
    soft_value,
    surprise,
    svgd_direction,
    temperature,
)
from purejaxrl_sac.losses.td import (
    expected_value,
    huber,
    least_value,
    rescale,
    rescaled_td_target,
    select_action,
    td_target,
    unscale,
)

__all__ = [
    "categorical_projection",
    "cross_entropy",
    "discrete_soft_value",
    "entropy",
    "expected_value",
    "huber",
    "importance_soft_value",
    "least_value",
    "log_sum_exp",
    "munchausen",
    "quantile_huber",
    "rescale",
    "rescaled_td_target",
    "select_action",
    "soft_actor",
    "soft_critic",
    "soft_value",
    "surprise",
    "svgd_direction",
    "td_target",
    "temperature",
    "unscale",
]
