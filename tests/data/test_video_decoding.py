"""What people bring is read as a player shows it; what is hostile is refused before it costs anything."""

import os
import struct
import zlib

import numpy as np
import pytest
from encoding import encode, with_second_camera, with_sound
from PIL import Image, ImageOps

from aime_gym.data import load_trajectories, save_video, video_decoding

pytestmark = pytest.mark.filterwarnings("error")


def steps(count=6, height=16, width=32, channels=3):
    """Frames of one grey each, with a dark corner at the upper left."""
    shown = np.empty((count, height, width, channels), np.uint8)
    shown[:] = np.linspace(100, 250, count).astype(np.uint8)[:, None, None, None]
    shown[:, : height // 2, : width // 2] //= 4
    return shown


def load_one(path, **options):
    (trajectory,) = load_trajectories(path, **options)
    return trajectory.observations


def refuse(path, message, **options):
    with pytest.raises(ValueError, match=message):
        load_trajectories(path, **options)


# ---- containers ----


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sound.mp4", {"extra": with_sound(3, "aac")}),
        ("sound.mkv", {"extra": with_sound(3, "aac")}),
        ("sound.webm", {"extra": with_sound(3, "libopus"), "codec": "libvpx"}),
        ("sound.avi", {"extra": with_sound(3, "pcm_s16le")}),
        ("camera.mp4", {"extra": with_second_camera(steps(50, 8, 8), 20, "libx264", "yuv420p")}),
        ("camera.mkv", {"extra": with_second_camera(steps(50, 8, 8), 20, "libx264", "yuv420p")}),
        ("held.mp4", {"held": 50}),
        ("held.mkv", {"held": 50}),
    ],
)
def test_a_container_longer_than_its_pictures(tmp_path, name, options):
    codec = options.pop("codec", "libx264")
    path = encode(tmp_path / name, steps(), 20, codec, "yuv420p", **options)
    assert load_one(path, frame_rate=20).shape == steps().shape
    path.write_bytes(path.read_bytes()[:-200])
    refuse(path, "damaged or cut short")


def test_what_follows_the_last_atom_is_no_damage(tmp_path):
    path = encode(tmp_path / "a.mp4", steps(), 20, "libx264", "yuv420p")
    with path.open("ab") as file:
        file.write(b"written by a camera behind the video")
    assert load_one(path).shape == steps().shape


@pytest.mark.parametrize("name", ["live.mkv", "live.webm"])
def test_a_live_recording(tmp_path, name):
    """Its elements have no sizes, as nobody knew them when they began."""
    codec = "libvpx" if name.endswith("webm") else "libx264"
    path = encode(tmp_path / name, steps(40), 20, codec, "yuv420p", container_options={"live": "1"})
    data = path.read_bytes()
    assert load_one(path).shape == steps(40).shape
    for part in (0.95, 0.8, 0.5, 0.3):
        path.write_bytes(data[: int(len(data) * part)])
        refuse(path, "damaged or cut short")


@pytest.mark.parametrize("turn", [(90,), (180,), (270,), (0, True), (0, False, True), (90, True)])
def test_a_video_that_was_turned(tmp_path, turn):
    plain = load_one(encode(tmp_path / "plain.mp4", steps(), 20, "libx264", "yuv420p"))
    turned = np.rot90(plain, turn[0] // 90, axes=(1, 2))
    if turn[1:]:
        turned = turned[:, :, ::-1] if turn[1] else turned[:, ::-1]
    path = encode(tmp_path / "turned.mp4", steps(), 20, "libx264", "yuv420p", turn=turn)
    np.testing.assert_array_equal(load_one(path, frame_shape=turned.shape[1:]), turned)


def test_a_video_that_was_turned_by_another_angle(tmp_path):
    path = encode(tmp_path / "a.mp4", steps(), 20, "libx264", "yuv420p", turn=(30,))
    refuse(path, r"a\.mp4: expected frames turned by quarter turns")


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mov", "qtrle", "argb"),
        ("a.mkv", "ffv1", "bgra"),
        ("vp8.webm", "libvpx", "yuva420p"),
        ("vp9.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_alpha_is_the_fourth_channel(tmp_path, name, codec, pixels):
    shown = steps(channels=4)
    options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
    read = load_one(encode(tmp_path / name, shown, 20, codec, pixels, options), frame_shape=(16, 32, 4))
    assert np.abs(read[..., 3].astype(int) - shown[..., 3]).mean() < 4


def test_a_size_that_changes(tmp_path):
    path = encode(
        tmp_path / "a.avi",
        steps(3),
        20,
        "mjpeg",
        "yuvj420p",
        extra=with_second_camera(steps(3, 8, 8), 20, "mjpeg", "yuvj420p"),
    )
    data = path.read_bytes()
    assert load_one(path).shape == steps(3).shape
    path.write_bytes(data.replace(b"01dc", b"00dc"))  # the pictures of both streams, in one
    refuse(path, r"a\.avi: expected a picture of \(16, 32, 3\) as the first one, got \(8, 8, 3\)")


# ---- pictures ----


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_the_camera_was_held(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for index, frame in enumerate(steps(3)):
        Image.fromarray(frame).save(tmp_path / f"{index}{suffix}", exif=exif.tobytes())
    with Image.open(tmp_path / f"0{suffix}") as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    assert shown.shape == ((32, 16, 3) if orientation > 4 else (16, 32, 3))
    np.testing.assert_array_equal(load_one(tmp_path, frame_shape=shown.shape)[0], shown)


# ---- what is hostile ----


def manifest(of):
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="1000" width="32" height="16">'
        f"<BaseURL>{of}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
@pytest.mark.parametrize(
    "text",
    [
        lambda of: f"ffconcat version 1.0\nfile {of}\n",
        manifest,
        lambda of: f"#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{of}\n#EXT-X-ENDLIST\n",
        lambda of: f"#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://localhost:9/{of}\n",
    ],
    ids=["ffconcat", "dash", "playlist", "address"],
)
def test_a_file_names_no_other_file(tmp_path, monkeypatch, suffix, text):
    monkeypatch.chdir(tmp_path)
    fragments = {"container_options": {"movflags": "frag_keyframe+empty_moov"}}
    encode(tmp_path / "secret.mp4", steps(), 20, "libx264", "yuv420p", **fragments)
    (tmp_path / f"a{suffix}").write_text(text("secret.mp4"))
    refuse(tmp_path / f"a{suffix}", rf"a{suffix}: expected (MP4, Q|a readable video)")


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "PPM", "GIF"])
@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_suffix_admits_no_other_format(tmp_path, kind, suffix):
    path = tmp_path / f"0{suffix}"
    Image.fromarray(steps()[0]).save(path, kind if (kind, suffix) != ("GIF", ".gif") else "PNG")
    refuse(tmp_path, rf"0\{suffix}: expected a readable video")


@pytest.mark.parametrize("name", ["0.mp4", "0.gif", "0.png"])
def test_only_regular_files_are_opened(tmp_path, name):
    """To open a pipe waits for somebody who writes to it."""
    path = tmp_path / "videos" / name
    path.parent.mkdir()
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("nothing")):
        make(path)
        refuse(path.parent, rf"{name}: expected a regular file")
        with pytest.raises((ValueError, FileNotFoundError)):
            load_trajectories(path)
        path.unlink()


def png(width, height):
    """A picture of a few bytes that claims to be large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("sides", [(9000, 9000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_pictures_that_claim_to_be_large(tmp_path, sides):
    (tmp_path / "0.png").write_bytes(png(*sides))
    refuse(tmp_path, r"0\.png: expected")
    width, height = min(sides[0], 65_535), min(sides[1], 65_535)
    gif = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    gif += b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"
    (tmp_path / "0.gif").write_bytes(gif)
    refuse(tmp_path / "0.gif", r"0\.gif: expected")


@pytest.mark.parametrize("kind", [".mp4", ".gif", ""])
@pytest.mark.parametrize("bound", ["_MOST_PIXELS", "_MOST_BYTES"])
def test_bounds_on_size(tmp_path, monkeypatch, kind, bound):
    path = save_video(tmp_path / f"v{kind}", steps(), 20)
    enough = {"_MOST_PIXELS": 16 * 32, "_MOST_BYTES": steps().nbytes}[bound]
    monkeypatch.setattr(video_decoding, bound, enough)
    np.testing.assert_array_equal(load_one(path), steps())
    monkeypatch.setattr(video_decoding, bound, enough - 1)
    refuse(path, rf"v.*: expected at most {enough - 1} ")
