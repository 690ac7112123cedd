"""Frames as a film: MP4 through ffmpeg, GIF through Pillow. The file is whole or not there."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # [H, W, 3]
FASTEST = 50.0  # frames a second: what comes faster in a GIF is shown at ten a second by most viewers, and nobody sees it in a film


def can_write_mp4() -> bool:
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def check(path: Path) -> None:
    """Raises ValueError, before any work, where a film could not be written to `path`."""
    if path.suffix not in (".mp4", ".gif"):
        raise ValueError(f"{path} is neither .mp4 nor .gif: the name of a film ends in one of them")
    if path.suffix == ".mp4" and not can_write_mp4():
        raise ValueError(
            f"{path.name} needs the package imageio-ffmpeg, which is not installed: pip install 'steepest[video]', or write "
            f"{path.with_suffix('.gif').name}, which needs nothing more"
        )
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist: make it first, or name another file")


def write(path: Path, frames: Iterator[Frame], fps: float) -> None:
    """Frames, taken one after another, at `fps` a second."""
    check(path)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        (mp4 if path.suffix == ".mp4" else gif)(draft, frames, fps)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def mp4(path: Path, frames: Iterator[Frame], fps: float) -> None:
    import imageio_ffmpeg

    writer: Any = None
    try:
        for frame in frames:
            height, width = (side // 2 * 2 for side in frame.shape[:2])  # the usual colour format has no odd sides
            if writer is None:
                writer = imageio_ffmpeg.write_frames(
                    str(path), (width, height), fps=fps, quality=7, macro_block_size=2, ffmpeg_log_level="error"
                )
                writer.send(None)
            writer.send(np.ascontiguousarray(frame[:height, :width]))
    finally:
        if writer is not None:
            writer.close()


def gif(path: Path, frames: Iterator[Frame], fps: float) -> None:
    from PIL import Image

    pictures = (Image.fromarray(frame).quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for frame in frames)
    first = next(pictures)
    hundredths = round(100 / fps)  # a GIF counts time in them
    first.save(path, save_all=True, append_images=pictures, duration=10 * hundredths, loop=0)
