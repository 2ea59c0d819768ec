"""Episodes as GIF or MP4: one compiled scan acts, the environment's painter draws each step."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageColor, ImageDraw

from purejaxrl_sac import envs
from purejaxrl_sac.checks import check_train_state
from purejaxrl_sac.config import Config, ConfigError, number, whole_number
from purejaxrl_sac.evaluate import PolicyFactory, rollout_states
from purejaxrl_sac.evaluate import policy as greedy
from purejaxrl_sac.experiment.pictures.painters import (
    COLORS,
    INK,
    SIZE,
    SUPERSAMPLING,
    Episode,
    Scene,
    font,
    painter,
)
from purejaxrl_sac.types import PyTree, TrainState, Transition

Rollout = Callable[[jax.Array, TrainState], tuple[PyTree, Transition, jax.Array]]

MAX_FRAMES = 250  # longer episodes skip steps
MAX_STEPS = 500  # of an episode without time limit


def episode(
    key: jax.Array,
    config: Config,
    state: TrainState,
    path: Path,
    *,
    max_steps: int | None = None,
    fps: float | None = None,
    policy: PolicyFactory = greedy,
    rollout: Rollout | None = None,
) -> Episode:
    """Roll out one episode and write it as a GIF, or as MP4 with the extra `video`.

    Args:
        key: PRNG key of the start state and of all noise.
        state: one seed's state.
        path: a .gif or .mp4 file that does not exist.
        max_steps: maximum length; None for the environment's time limit, else 500.
        fps: frames per second, 1 to 50; None for the environment's usual rate. An episode of more
            than `MAX_FRAMES` steps shows every second, third, ... step only.
        policy: `evaluate.policy` (the default), `exploring_policy`, or your own.
        rollout: the compiled `rollout_program` of these arguments; None compiles it now.

    Raises:
        ConfigError: no renderer for this environment, or the file cannot be written.
    """
    path = Path(path)
    _check(path, state, max_steps, fps)
    paint, usual_fps = painter(config)
    rollout = rollout or rollout_program(config, max_steps=max_steps, policy=policy)
    played = played_episode(*rollout(key, state))
    env = envs.bind(config.env, config.env_params)
    scene, length = Scene(env.game, env.params, played), len(played.rewards)
    returns = np.concatenate([[0], played.rewards.cumsum(dtype=float)])
    frames = []
    for t in [*range(0, length, -(-length // MAX_FRAMES)), length]:
        caption = f"step {t}, return {returns[t]:.5g}" + f", {played.ending}" * (t == length)
        frames.append(captioned(paint(scene, t), caption))
    encode = mp4 if path.suffix == ".mp4" else gif
    encoded = encode(frames, usual_fps if fps is None else fps)
    try:
        with path.open("xb") as file:  # fails if the file was created in the meantime
            try:
                file.write(encoded)
                file.flush()
            except BaseException:  # an incomplete file would be in the way of the next call
                path.unlink()
                raise
    except OSError as error:
        raise _unwritable(path, error) from None
    return played


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path}: {error.strerror or error}")


def _check(path: Path, state: TrainState, max_steps: int | None, fps: float | None) -> None:
    """Raise the errors that can be found before the episode is rolled out."""
    if path.suffix not in (".gif", ".mp4"):
        raise ConfigError(f"{path} must end in .gif or .mp4")
    if path.suffix == ".mp4" and ffmpeg() is None:
        raise ConfigError(
            f"{path} needs ffmpeg: pip install 'purejaxrl_sac[video]', or write a .gif"
        )
    try:
        if path.exists():
            raise ConfigError(f"{path} exists already: give another name")
        if not path.parent.is_dir():
            raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")
    except OSError as error:
        raise _unwritable(path, error) from None
    if max_steps is not None:
        whole_number("max_steps", max_steps, at_least=1)
    if fps is not None and not 1 <= number("fps", fps) <= 50:  # a GIF measures time in 1/100 s
        raise ConfigError(f"fps is {fps}, but must be from 1 to 50")
    check_train_state(state)
    if jnp.ndim(state.key):
        raise ConfigError(
            f"state holds {len(state.key)} seeds: seed_state(state, 0) is one of them"
        )


def rollout_program(
    config: Config, *, max_steps: int | None = None, policy: PolicyFactory = greedy
) -> jax.stages.Wrapped:
    """The jitted rollout of one episode; arguments as for `episode`."""
    if max_steps is None and envs.bind(config.env, config.env_params).max_steps is None:
        max_steps = MAX_STEPS

    @jax.jit
    def rollout(key: jax.Array, state: TrainState) -> tuple[PyTree, Transition, jax.Array]:
        return rollout_states(key, config, state, 1, policy=policy, max_steps=max_steps)

    return rollout


def played_episode(*rolled_out: PyTree) -> Episode:
    """The episode in the results of a `rollout_program`: states, steps, which of them it has."""
    states, steps, running = jax.tree.map(lambda x: np.asarray(x)[:, 0], rolled_out)
    states, steps = jax.tree.map(lambda x: x[running], (states, steps))
    ending = "terminated" if steps.discount[-1] == 0 else "time limit"
    return Episode(
        states=states,
        obs=np.concatenate([steps.obs[:1], steps.next_obs]),
        actions=steps.action,
        rewards=steps.reward,
        ending=ending if steps.last[-1] else "unfinished",
    )


def captioned(image: Image.Image, caption: str) -> Image.Image:
    """The image at its final size, with a line of text below."""
    width, height = (side // SUPERSAMPLING for side in image.size)
    frame = Image.new("RGB", (max(width, SIZE * 3 // 4), height + 24), "white")
    frame.paste(
        image.resize((width, height), Image.Resampling.BOX), ((frame.width - width) // 2, 0)
    )
    ImageDraw.Draw(frame).text((6, height + 4), caption, fill=INK, font=font(13))
    return frame


def gif(frames: Sequence[Image.Image], fps: float) -> bytes:
    """Encode frames as a GIF that repeats; the last frame is shown for one second."""
    sample = Image.new("RGB", (frames[0].width, 3 * frames[0].height))
    for i, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        sample.paste(frame, (0, i * frame.height))
    blends = sample.quantize(64).getpalette()  # of antialiased edges
    colors = Image.new("P", (1, 1))  # one palette for all frames: only differences are stored
    colors.putpalette([*np.ravel([ImageColor.getrgb(name) for name in COLORS]), *(blends or ())])
    indexed = [frame.quantize(palette=colors, dither=Image.Dither.NONE) for frame in frames]
    durations = [10 * round(100 / fps)] * (len(frames) - 1) + [1000]
    file = io.BytesIO()
    indexed[0].save(
        file, format="GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0
    )
    return file.getvalue()


def ffmpeg() -> str | None:
    """The program ffmpeg: that of the system, or else of the extra `video`; None without either."""
    if installed := shutil.which("ffmpeg"):
        return installed
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # the package is not installed, or not for this platform
        return None


def mp4(frames: Sequence[Image.Image], fps: float) -> bytes:
    """Encode frames as MP4 with ffmpeg; the last frame is shown for one second.

    Raises:
        ConfigError: ffmpeg fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        for i, frame in enumerate([*frames, *[frames[-1]] * round(fps)]):
            width, height = (side // 2 * 2 for side in frame.size)  # yuv420p needs even sides
            frame.crop((0, 0, width, height)).save(Path(folder) / f"{i:05}.png")
        video = Path(folder) / "film.mp4"
        command = [ffmpeg() or "ffmpeg", "-nostdin", "-loglevel", "error", "-framerate", f"{fps:g}"]
        command += ["-i", f"{folder}/%05d.png", "-pix_fmt", "yuv420p", str(video)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[0]
            raise ConfigError(f"ffmpeg cannot make an MP4 ({reason}): write a .gif")
        return video.read_bytes()
