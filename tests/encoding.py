"""Video files as other programs write them."""

from fractions import Fraction

import av
import numpy as np


def encode(path, shown, rate, codec, pixels, options=None, *, times=None, held=1, turn=None, extra=None, **container):
    """Write frames (N, H, W, C).

    :param times: number of the frame interval at which each frame appears.
    :param held: intervals for which the last frame stays.
    :param turn: degrees counter-clockwise, and whether it is mirrored on either axis.
    :param extra: called with the container before the frames are written; what it returns is called after them.
    :param container: arguments of ``av.open``.
    """
    with av.open(str(path), "w", **container) as file:
        stream = add_pictures(file, shown, rate, codec, pixels, options)
        if turn is not None:
            stream.set_display_rotation(*turn)
        write_extra = extra(file) if extra is not None else None
        write_pictures(file, stream, shown, times or range(len(shown)), held)
        if write_extra is not None:
            write_extra()
    return path


def add_pictures(file, shown, rate, codec, pixels, options=None):
    stream = file.add_stream(codec, rate=Fraction(rate), options=options or {})
    stream.height, stream.width = shown.shape[1:3]
    stream.pix_fmt = pixels
    return stream


def write_pictures(file, stream, shown, times, held=1):
    kind = {1: "gray", 3: "rgb24", 4: "rgba"}[shown.shape[3]]
    for frame, time in zip(shown, times, strict=True):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[..., 0] if kind == "gray" else frame), kind)
        picture.pts = time
        picture.time_base = 1 / stream.codec_context.framerate
        file.mux(stream.encode(picture))
    packets = stream.encode(None)
    if packets and held > 1:
        packets[-1].duration *= held
    file.mux(packets)


def with_sound(seconds, codec):
    """Return an ``extra`` of :func:`encode`: a sound track of silence."""

    def add(file):
        stream = file.add_stream(codec, rate=48000, layout="mono")

        def write():
            for index in range(int(seconds * 48000 / 960)):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
                silence.sample_rate = 48000
                silence.pts = 960 * index
                file.mux(stream.encode(silence))
            file.mux(stream.encode(None))

        return write

    return add


def with_second_camera(shown, rate, codec, pixels):
    """Return an ``extra`` of :func:`encode`: another stream of pictures."""

    def add(file):
        stream = add_pictures(file, shown, rate, codec, pixels)
        return lambda: write_pictures(file, stream, shown, range(len(shown)))

    return add
