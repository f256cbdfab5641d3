"""Pictures as the web has them: what each kind becomes, and which are refused."""

import numpy as np
import pytest
import torch
from picture_files import bomb, cmyk_profile, grey_profile, quarters, rgb_profile, saved
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from datamodules import Captions, HorizontalFlip, Pad, RandomCrop, Shards, WebDatasetDataModule
from datamodules.decoding.picture import PictureDecoder
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import REASONS, Skipped, Unusable
from pretzel.errors import UserError
from pretzel.media.image_input import as_pixels
from pretzel.media.rgb import to_rgb
from pretzel.rng import stream

STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def decoded(data, size=16, draw=None, **options):
    return PictureDecoder(image_size=size, **options)(data, draw)


def corner(data, **options):
    """Return the colour of the first pixel."""
    return tuple(decoded(data, 4, **options)[0, 0].tolist())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_upright(kind, tmp_path):
    upright = quarters()
    for orientation, turn in STORED_AS.items():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        stored = upright if turn is None else upright.transpose(turn)
        options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(
            kind, {}
        )
        data = saved(stored, kind, exif=exif, **options)
        expected = decoded(saved(upright))
        assert np.abs(decoded(data).astype(int) - expected).max() <= 12 * (kind == "JPEG")
        path = tmp_path / f"x.{kind}"
        path.write_bytes(data)
        with Image.open(path) as opened:
            prepared = as_pixels([path, opened], 16)
        scaled = torch.from_numpy(decoded(data)).permute(2, 0, 1) / 127.5 - 1
        torch.testing.assert_close(prepared, scaled.expand(2, -1, -1, -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array([0, 257, 128 * 257, 65535], np.uint16), "PNG", [0, 1, 128, 255]),
        (np.array([0, 257, 128 * 257, 65535], np.uint16), "TIFF", [0, 1, 128, 255]),
        (np.array([0, 1000, 32768, 65535], np.int32), "TIFF", [0, 4, 128, 255]),
        (np.array([0, 7, 128, 255], np.int32), "TIFF", [0, 7, 128, 255]),
        (np.array([0.0, 0.25, 0.5, 1.0], np.float32), "TIFF", [0, 64, 128, 255]),
        (np.array([0.0, 0.5, 200.0, 255.0], np.float32), "TIFF", [0, 0, 200, 255]),
        (np.array([0.0, 257.0, 514.0, 60000.0], np.float32), "TIFF", [0, 1, 2, 233]),
    ],
)
def test_deep_grey_is_scaled(values, kind, expected):
    picture = Image.fromarray(values.repeat(4).reshape(4, 4))
    pixels = decoded(saved(picture, kind), 4)
    assert pixels[:, 0].tolist() == [[level] * 3 for level in expected]


@pytest.mark.parametrize(
    "values", [np.array([-1, 0], np.int32), np.array([0.0, np.nan], np.float32)]
)
def test_grey_in_no_known_range_is_refused(values):
    with pytest.raises(Unusable) as error:
        decoded(saved(Image.fromarray(values.repeat(8).reshape(4, 4)), "TIFF"), 4)
    assert error.value.reason == "value range"


def test_colour_profiles_become_srgb():
    colour = Image.new("RGB", (4, 4), (100, 150, 200))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert corner(saved(colour, icc_profile=srgb)) == (100, 150, 200)
    # light is proportional to the value: 255 ((1 + a) (v / 255)^(1 / 2.4) - a), a = 0.055
    assert corner(saved(colour, icc_profile=rgb_profile(1.0))) == (168, 202, 229)
    swapped = corner(saved(colour, icc_profile=rgb_profile(2.2, swapped=True)))
    assert np.abs(np.array(swapped) - (200, 150, 100)).max() <= 1
    grey = Image.new("L", (4, 4), 100)
    for profile in (grey_profile(1.0), rgb_profile(1.0)):
        assert corner(saved(grey, icc_profile=profile)) == (168, 168, 168)
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    assert corner(saved(cyan, "TIFF")) == (0, 255, 255)
    red, green, blue = corner(saved(cyan, "TIFF", icc_profile=cmyk_profile()))
    assert 115 < red == green == blue < 123  # L* = 50


def test_profiles_reach_transparent_pictures():
    picture = Image.new("RGBA", (4, 4), (100, 150, 200, 0))
    picture.paste((100, 150, 200, 255), (0, 0, 4, 2))
    pixels = decoded(saved(picture, icc_profile=rgb_profile(1.0)), 4, background=(1, 2, 3))
    assert pixels[:, 0].tolist() == [[168, 202, 229]] * 2 + [[1, 2, 3]] * 2


@pytest.mark.parametrize("profile", [b"none" * 50, grey_profile(2.2), cmyk_profile()])
def test_a_profile_that_is_broken_or_another_is_refused(profile):
    with pytest.raises(Unusable) as error:
        corner(saved(quarters(), icc_profile=profile))
    assert error.value.reason == "colour profile"


def transparent(mode):
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "P":
        return saved(Image.new("RGB", (4, 4)).quantize(4), transparency=0)
    if mode == "RGB":
        return saved(Image.new("RGB", (4, 4), "lime"), transparency=(0, 255, 0))
    if mode == "I;16":
        return saved(Image.fromarray(np.full((4, 4), 9, np.uint16)), transparency=9)
    return saved(picture.convert(mode))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "I;16"])
def test_transparent_pixels_have_the_background(mode):
    assert corner(transparent(mode)) == (255, 255, 255)
    assert corner(transparent(mode), background=(10, 20, 30)) == (10, 20, 30)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa"])
def test_every_mode_becomes_rgb(mode):
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
        picture = transform.apply(Image.new("RGB", (4, 4), "white"))
    else:
        picture = Image.new("RGBA", (4, 4), "white").convert("LA" if mode == "La" else "RGBA")
        picture = picture.convert("RGB" if mode in ("CMYK", "YCbCr", "HSV", "P") else picture.mode)
        picture = picture.convert(mode)
    assert min(to_rgb(picture).getpixel((0, 0))) >= 254  # LAB has 8 bits too


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_many_is_read(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("white", "black")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decoded(data) == 255).all()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "damaged"),
        (b"", "damaged"),
        (saved(quarters(64, 64), "JPEG")[:500], "damaged"),
        (saved(quarters(), "ICO", sizes=[(16, 16)]), "damaged"),  # a format that is not read
        (bomb(9500, 9500), "too large"),
        (bomb(60000, 60000), "too large"),
        (saved(quarters(30, 8)), "too small"),
    ],
)
def test_what_cannot_serve_is_skipped_with_its_reason(data, reason):
    decoder = Shards("a.tar").decoder(PictureDecoder(image_size=16))
    raw = RawSample(shard="a.tar", key="x", members={"jpg": data, "txt": b"t"})
    skipped = decoder(raw)
    assert isinstance(skipped, Skipped)
    assert skipped.reason == reason
    assert reason in REASONS
    assert "\n" not in skipped.detail


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_may_be_in_xmp(kind):
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/>'
    options = {"xmp": xmp, **({"lossless": True} if kind == "WEBP" else {})}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"pnginfo": info}
    data = saved(quarters(16, 16).transpose(Image.Transpose.ROTATE_180), kind, **options)
    assert decoded(data)[0, 0].argmax() == 0  # red


def test_broken_exif_data_leave_a_picture_as_it_is():
    data = saved(quarters(), "JPEG", exif=b"Exif\x00\x00nothing of the kind")
    assert (decoded(data) == decoded(saved(quarters(), "JPEG"))).all()


def test_a_padded_picture_is_whole():
    pixels = decoded(saved(Image.new("RGB", (32, 16), "red")), 16, crop=Pad("#010203"))
    assert (pixels[4:12] == (255, 0, 0)).all()
    assert (pixels[:4] == (1, 2, 3)).all()
    assert (pixels[12:] == (1, 2, 3)).all()
    thin = decoded(saved(Image.new("RGB", (1000, 1), "red")), 16, crop=Pad("black"))
    assert (thin == (255, 0, 0)).all(-1).sum() == 16
    # the longer side counts
    decoded(saved(Image.new("RGB", (16, 3))), 16, crop=Pad())
    with pytest.raises(Unusable, match="15x3"):
        decoded(saved(Image.new("RGB", (15, 3))), 16, crop=Pad())


def test_random_crops_have_the_area_that_was_asked_for():
    ramp = np.zeros((200, 400, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 200, 400)
    ramp[..., 1] = np.linspace(0, 100, 200)[:, None]
    data = saved(Image.fromarray(ramp))
    shares, lefts = [], []
    for place in range(60):
        pixels = decoded(data, 32, stream(place), crop=RandomCrop((0.25, 0.81), (0.5, 2.0)))
        x, y = (pixels[..., channel].astype(float) for channel in (0, 1))
        width, height = (x[0, -1] - x[0, 0]) * 2 / 31 * 32, (y[-1, 0] - y[0, 0]) * 2 / 31 * 32
        aspect = width / height
        assert 0.45 < aspect < 2.2
        largest = min(400, 200 * aspect) * min(200, 400 / aspect)
        shares.append(width * height / largest)
        lefts.append(x[0, 0])
    assert 0.22 < min(shares) < 0.35
    assert 0.7 < max(shares) < 0.85
    assert max(lefts) > 80


def train_images(source, num_workers=0, epochs=1, **options):
    """Return the training images of each epoch by key."""
    data = WebDatasetDataModule(
        source, Captions(0.0), 16, 4, 4, num_workers, shuffle_buffer=8, **options
    )
    loader = data.train_dataloader()
    return [
        {
            document.key: image
            for batch in loader
            for document, image in zip(batch.documents, batch.images, strict=True)
        }
        for _ in range(epochs)
    ]


def test_crops_and_flips_belong_to_the_sample(shard_pattern):
    source = Shards(shard_pattern)
    crop, flip = RandomCrop((0.2, 0.8)), HorizontalFlip(0.5)
    (alone,) = train_images(source, crop=crop)
    first, *_, later = train_images(source, 2, epochs=5, crop=crop)  # of 16 of 60 pictures
    shared = alone.keys() & first.keys()
    assert shared
    assert all(torch.equal(alone[key], first[key]) for key in shared)
    again = first.keys() & later.keys()
    assert again
    assert all(not torch.equal(first[key], later[key]) for key in again)
    # a flip leaves the crops what they are
    (flipped,) = train_images(source, crop=crop, flip=flip)
    assert flipped.keys() == alone.keys()
    is_same = {key: torch.equal(flipped[key], alone[key]) for key in alone}
    assert 0 < sum(is_same.values()) < len(is_same)
    assert all(torch.equal(flipped[k].flip(-1), alone[k]) for k in alone if not is_same[k])


def test_evaluation_sees_the_centre(shard_pattern):
    source = Shards(shard_pattern, test=shard_pattern)
    options = {"image_size": 8, "batch_size": 60, "steps_per_epoch": 1}
    plain = WebDatasetDataModule(source, Captions(), **options)
    cropped = WebDatasetDataModule(
        source, Captions(), crop=RandomCrop(), flip=HorizontalFlip(), **options
    )
    (expected,), (found,) = plain.test_dataloader(), cropped.test_dataloader()
    assert torch.equal(found.images, expected.images)
    samples = zip(plain.evaluation_samples(), cropped.evaluation_samples(), strict=True)
    assert all((a.pixels == b.pixels).all() for a, b in samples)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(scale=(0.0, 1.0)), r"scale must be .* not \[0.0, 1.0\]"),
        (lambda: RandomCrop(aspect=(2.0, 1.0)), r"aspect must be .* not \[2.0, 1.0\]"),
        (lambda: HorizontalFlip(1.5), "probability must be a probability in"),
        (lambda: Pad("beige-ish"), "background must be a CSS colour name or #rrggbb"),
        (
            lambda: WebDatasetDataModule(
                Shards("a.tar"), Captions(), 8, 1, 1, background="#ffffff80"
            ),
            "background must be",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_mirrored_pictures_are_mirrored():
    data = saved(quarters(16, 16))
    mirrored = decoded(data, 16, stream(0), flip=HorizontalFlip(1.0))
    assert (mirrored == np.asarray(ImageOps.mirror(quarters(16, 16)))).all()
