"""Every kind of image file becomes the pixels that a viewer shows, or is refused with a reason."""

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from alexnet_jax.data import images

REPOSITORY = Path(__file__).parents[2]
HEIGHT, WIDTH = 24, 30
ORIENTATION, SOFTWARE = 0x0112, 0x0131  # EXIF tags

# pytest replaces the filter that the module sets; `test_pillow_warns_nobody` has it as it is.
quiet = pytest.mark.filterwarnings(r'ignore:::PIL\.')


def stored(image, kind, **options):
  """An image, or an array of its pixels, as a file's content."""
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def colors():
  """[H, W, 3] uint8, smooth and different in every channel and direction."""
  rows, columns = np.mgrid[:HEIGHT, :WIDTH]
  return np.stack([8 * columns, 10 * rows, 255 - 4 * (rows + columns)], axis=-1).astype(np.uint8)


def grays():
  return colors()[..., 0]


def thrice(gray):
  return np.repeat(np.asarray(gray)[..., None], 3, axis=-1)


def pixels(encoded):
  image = images.decode(encoded)
  assert image.mode == 'RGB'
  return np.asarray(image)


def refusal(encoded):
  """Why a file is refused; None where it is not."""
  try:
    images.decode(encoded)
  except images.UnreadableError as error:
    return str(error)
  return None


def over_white(color, alpha):
  """What [H, W, 3] uint8 with opacities [H, W] uint8 looks like on white paper."""
  opacity = alpha[..., None] / 255
  return np.round(color * opacity + 255 * (1 - opacity)).astype(np.uint8)


@pytest.mark.parametrize(
  ('kind', 'options'),
  [
    ('PNG', {}),
    ('BMP', {}),
    ('PPM', {}),
    ('WEBP', {'lossless': True}),
    ('TIFF', {}),
    ('TIFF', {'compression': 'tiff_lzw'}),
  ],
)
def test_colors_are_kept(kind, options):
  np.testing.assert_array_equal(pixels(stored(colors(), kind, **options)), colors())


@pytest.mark.parametrize('options', [{}, {'progressive': True}])
def test_a_jpeg_is_what_pillow_decodes(options):
  encoded = stored(colors(), 'JPEG', quality=95, **options)
  np.testing.assert_array_equal(pixels(encoded), np.asarray(Image.open(io.BytesIO(encoded))))
  np.testing.assert_allclose(pixels(encoded).astype(int), colors(), atol=16)


@pytest.mark.parametrize('kind', ['PNG', 'PPM', 'BMP', 'TIFF', 'GIF'])
def test_gray_images_are_read_as_gray(kind):
  np.testing.assert_array_equal(pixels(stored(grays(), kind)), thrice(grays()))


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'PPM'])
def test_one_bit_is_black_and_white(kind):
  bits = grays() > 100
  encoded = stored(Image.fromarray(bits), kind)
  assert Image.open(io.BytesIO(encoded)).mode == '1'
  np.testing.assert_array_equal(pixels(encoded), thrice(255 * bits.astype(np.uint8)))


def palette_image():
  """An image of 12 colors, and its pixels [H, W, 3]."""
  chosen = (grays() // 20).astype(np.uint8)
  palette = np.random.default_rng(0).integers(0, 256, (12, 3), dtype=np.uint8)
  image = Image.frombytes('P', (WIDTH, HEIGHT), chosen.tobytes())
  image.putpalette(palette.tobytes())
  return image, palette[chosen], chosen


@pytest.mark.parametrize('kind', ['PNG', 'GIF', 'BMP', 'TIFF'])
def test_palettes_are_looked_up(kind):
  image, expected, _ = palette_image()
  encoded = stored(image, kind)
  assert Image.open(io.BytesIO(encoded)).mode == 'P'
  np.testing.assert_array_equal(pixels(encoded), expected)


@pytest.mark.parametrize('kind', ['PNG', 'GIF'])
def test_a_transparent_color_of_a_palette_is_white(kind):
  image, expected, chosen = palette_image()
  encoded = stored(image, kind, transparency=3)
  expected[chosen == 3] = 255
  np.testing.assert_array_equal(pixels(encoded), expected)


def test_opacities_of_a_palette_are_composed():
  image, expected, chosen = palette_image()
  alpha = np.array([0, 255, 128, 17, *[255] * 8], np.uint8)
  encoded = stored(image, 'PNG', transparency=alpha.tobytes())
  np.testing.assert_allclose(
    pixels(encoded).astype(int), over_white(expected, alpha[chosen]), atol=1
  )


@pytest.mark.parametrize(
  ('kind', 'options'), [('PNG', {}), ('WEBP', {'lossless': True, 'exact': True}), ('TIFF', {})]
)
def test_transparency_lies_on_white(kind, options):
  alpha = colors()[..., 1]
  encoded = stored(np.dstack([colors(), alpha]), kind, **options)
  expected = over_white(colors(), alpha)
  np.testing.assert_allclose(pixels(encoded).astype(int), expected, atol=1)
  assert np.all(pixels(encoded)[alpha == 0] == 255)


def test_gray_with_transparency_lies_on_white():
  alpha = colors()[..., 1]
  encoded = stored(Image.merge('LA', [Image.fromarray(grays()), Image.fromarray(alpha)]), 'PNG')
  expected = over_white(thrice(grays()), alpha)
  np.testing.assert_allclose(pixels(encoded).astype(int), expected, atol=1)


def test_a_transparent_color_is_white():
  color = colors()
  color[3:7] = (200, 20, 30)
  gray = grays().copy()
  gray[3:7] = 77
  for image, transparent in ((color, (200, 20, 30)), (gray, 77)):
    decoded = pixels(stored(image, 'PNG', transparency=transparent))
    expected = (image if image.ndim == 3 else thrice(image)).copy()
    expected[3:7] = 255
    np.testing.assert_array_equal(decoded, expected)


def test_cmyk_is_converted():
  inks = np.dstack([colors(), np.full((HEIGHT, WIDTH), 40, np.uint8)])
  image = Image.frombytes('CMYK', (WIDTH, HEIGHT), inks.tobytes())
  expected = (255 - inks[..., :3].astype(float)) * (255 - 40) / 255
  np.testing.assert_allclose(pixels(stored(image, 'TIFF')), expected, atol=1.5)
  # Pillow, as Adobe does, stores a JPEG's inks inverted, and says so in an Adobe marker.
  encoded = stored(image, 'JPEG', quality=100, subsampling='4:4:4')
  assert b'Adobe' in encoded
  assert Image.open(io.BytesIO(encoded)).mode == 'CMYK'
  np.testing.assert_allclose(pixels(encoded), expected, atol=6)


def wide_grays():
  """[H, W] uint16 from 0 to 65535."""
  values = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
  assert (values.min(), values.max()) == (0, 65535)
  return values


def as_int32(values):
  return Image.fromarray(values.astype(np.int32))


@pytest.mark.parametrize(
  ('encoded', 'mode'),
  [
    (stored(wide_grays(), 'PNG'), 'I;16'),
    (stored(wide_grays(), 'TIFF'), 'I;16'),
    (stored(Image.fromarray(wide_grays().astype('>u2')), 'TIFF'), 'I;16B'),
    (stored(as_int32(wide_grays()), 'TIFF'), 'I'),
    (stored(wide_grays(), 'PPM'), 'I'),
  ],
)
def test_16_bit_gray_is_scaled_not_clipped(encoded, mode):
  assert Image.open(io.BytesIO(encoded)).mode == mode
  decoded = pixels(encoded)
  np.testing.assert_array_equal(decoded, thrice((wide_grays() >> 8).astype(np.uint8)))
  np.testing.assert_allclose(decoded[..., 0], wide_grays() / 257, atol=1)


def test_8_bits_widened_to_32_stay():
  np.testing.assert_array_equal(pixels(stored(as_int32(grays()), 'TIFF')), thrice(grays()))


def test_8_bits_widened_to_16_come_back():
  widened = grays().astype(np.uint16) * 257
  np.testing.assert_array_equal(pixels(stored(widened, 'PNG')), thrice(grays()))


def test_a_transparent_16_bit_gray_is_white():
  values = wide_grays()
  values[5:9] = 12345
  expected = (values >> 8).astype(np.uint8)
  expected[5:9] = 255
  encoded = stored(values, 'PNG', transparency=12345)
  np.testing.assert_array_equal(pixels(encoded), thrice(expected))


def png_chunk(name, content):
  return (
    struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
  )


def wide_png(values, color_type):
  """A 16-bit PNG of [H, W, C] uint16, which Pillow does not write in color."""
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
  header = struct.pack('>IIBBBBB', WIDTH, HEIGHT, 16, color_type, 0, 0, 0)
  chunks = [(b'IHDR', header), (b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(png_chunk(*chunk) for chunk in chunks)


def test_16_bit_color_is_scaled():
  values = np.dstack([wide_grays(), wide_grays()[::-1], wide_grays()[:, ::-1]])
  expected = (values >> 8).astype(np.uint8)
  np.testing.assert_array_equal(pixels(wide_png(values, 2)), expected)
  assert np.all(pixels(wide_png(np.dstack([values, np.zeros_like(wide_grays())]), 6)) == 255)


@pytest.mark.parametrize(
  ('image', 'reason'),
  [
    (Image.fromarray(grays().astype(np.float32)), 'floating-point pixels have no fixed range'),
    (as_int32(wide_grays().astype(np.int64) * 4), 'pixels from 0 to 262140 are not of 16 bits'),
    (as_int32(wide_grays() - 5.0), 'pixels from -5 to 65530 are not of 16 bits'),
  ],
)
def test_pixels_without_a_range_are_refused(image, reason):
  with pytest.raises(images.UnreadableError, match=f'^{reason}$'):
    images.decode(stored(image, 'TIFF'))


# How an upright [H, W, 3] is stored for each orientation of EXIF.
STORED_AS = {
  1: lambda upright: upright,
  2: lambda upright: upright[:, ::-1],
  3: lambda upright: upright[::-1, ::-1],
  4: lambda upright: upright[::-1],
  5: lambda upright: upright.swapaxes(0, 1),
  6: lambda upright: np.rot90(upright),
  7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
  8: lambda upright: np.rot90(upright, 3),
}


@pytest.mark.parametrize('orientation', STORED_AS)
@pytest.mark.parametrize(
  ('kind', 'options'),
  [('JPEG', {'quality': 100}), ('PNG', {}), ('WEBP', {'lossless': True}), ('TIFF', {})],
)
def test_images_stand_upright(orientation, kind, options):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  turned = np.ascontiguousarray(STORED_AS[orientation](colors()))
  decoded = pixels(stored(turned, kind, exif=exif, **options))
  np.testing.assert_allclose(decoded.astype(int), colors(), atol=16 if kind == 'JPEG' else 0)


def test_palettes_stand_upright():
  image, expected, _ = palette_image()
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  turned = image.transpose(Image.Transpose.ROTATE_90)
  encoded = stored(turned, 'PNG', exif=exif, transparency=bytes([255] * 12))
  np.testing.assert_array_equal(pixels(encoded), expected)


def exif_block(orientation):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  exif[SOFTWARE] = 'a program with a long name'
  return exif.tobytes()


@quiet
@pytest.mark.parametrize(
  'block',
  [
    exif_block(99),
    exif_block(1)[:18],
    exif_block(1)[:-20],
    exif_block(1).replace(b'II*', b'no!').replace(b'MM', b'no'),
    b'Exif\0\0',
    b'Exif\0\0II*\0' + b'\xff' * 40,
  ],
)
def test_damaged_exif_does_no_harm(block):
  np.testing.assert_array_equal(pixels(stored(colors(), 'PNG', exif=block)), colors())


@quiet
def test_images_stand_upright_where_the_rest_of_exif_is_damaged():
  encoded = stored(np.rot90(colors()).copy(), 'PNG', exif=exif_block(6)[:-20])
  np.testing.assert_array_equal(pixels(encoded), colors())


@quiet
def test_images_stand_upright_where_the_rest_of_exif_cannot_be_written_again():
  """The resolution is text, not a fraction."""
  entries = struct.pack('<H2sHLHH', 2, b'\x12\x01', 3, 1, 6, 0)
  block = b'Exif\0\0II*\0\x08\0\0\0' + entries + struct.pack('<HHL4sL', 282, 2, 3, b'72', 0)
  shown = images.as_shown(
    Image.open(io.BytesIO(stored(np.rot90(colors()).copy(), 'PNG', exif=block)))
  )
  np.testing.assert_array_equal(np.asarray(shown), colors())
  np.testing.assert_array_equal(
    np.asarray(images.as_shown(shown)), colors()
  )  # and are not turned again


def test_an_image_without_pixels_is_refused():
  with pytest.raises(images.UnreadableError, match='no pixels'):
    images.as_shown(Image.new('RGB', (0, 5)))


@pytest.mark.parametrize(
  ('kind', 'options'), [('GIF', {}), ('WEBP', {'lossless': True}), ('PNG', {}), ('TIFF', {})]
)
def test_the_first_frame_is_taken(kind, options):
  frames = [Image.new('RGB', (WIDTH, HEIGHT), color) for color in ('red', 'blue', 'lime')]
  encoded = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
  assert Image.open(io.BytesIO(encoded)).n_frames == 3
  assert np.all(pixels(encoded) == (255, 0, 0))


@pytest.mark.parametrize(
  ('encoded', 'reason'),
  [
    (b'', 'empty file'),
    (
      b'version https://git-lfs.github.com/spec/v1\noid',
      'a Git LFS pointer, not the file itself; .*',
    ),
    (b'\n<!DOCTYPE html>', 'a web page, not the file itself: .*'),
    (b'this is no image, but text\n' * 20, 'cannot identify image file'),
    (b'<html><body>404 Not Found</body></html>', 'a web page, not the file itself: .*'),
    (b'\xff\xd8\xff', 'cannot identify image file'),
    (b'\x89PNG\r\n\x1a\n', 'cannot identify image file'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'cannot identify image file'),
    (bytes(1000), 'cannot identify image file'),
    (stored(colors(), 'JPEG')[:-2], r'image file is truncated \(\d+ bytes not processed\)'),
  ],
)
def test_what_is_no_image_is_refused_with_a_reason(encoded, reason):
  with pytest.raises(images.UnreadableError, match=f'^{reason}$'):
    images.decode(encoded)


@pytest.mark.parametrize(
  ('kind', 'options', 'end'),
  [  # what follows the last pixel: marks of the end, and checksums
    ('JPEG', {}, 0),
    ('JPEG', {'progressive': True}, 0),
    ('PNG', {}, 24),
    ('GIF', {}, 2),
    ('WEBP', {}, 0),
    ('BMP', {}, 2),  # which fill up the last row
    ('TIFF', {}, 0),
    ('TIFF', {'compression': 'tiff_lzw'}, 0),
    ('PPM', {}, 0),
  ],
)
def test_no_file_cut_short_is_accepted(kind, options, end):
  whole = stored(colors(), kind, **options)
  expected = pixels(whole)
  for length in {*range(1, len(whole), 37), *range(len(whole) - 40, len(whole))}:
    reason = refusal(whole[:length])
    if length < len(whole) - end:
      assert reason
      assert '0x' not in reason
    elif reason is None:
      np.testing.assert_array_equal(pixels(whole[:length]), expected)


@quiet
def test_random_damage_raises_nothing_else():
  rng = np.random.default_rng(0)
  reasons = set()
  for kind in ('JPEG', 'PNG', 'GIF', 'WEBP', 'TIFF', 'BMP', 'PPM'):
    whole = stored(colors(), kind)
    for _ in range(40):
      damaged = bytearray(whole)
      for place in rng.integers(0, min(200, len(whole)), size=4):
        damaged[place] = rng.integers(256)
      reasons.add(refusal(bytes(damaged)))
  assert len(reasons) > 10
  assert all(len(reason.splitlines()) == 1 and '0x' not in reason for reason in reasons - {None})


def test_nothing_is_said_of_a_damaged_tiff_but_the_reason(capfd, caplog):
  whole = stored(colors(), 'TIFF', compression='tiff_adobe_deflate')
  assert refusal(whole[:12] + b'\xff' * 50 + whole[62:])
  samples = struct.pack('<HHI', 277, 3, 1)
  of_65284 = whole.replace(samples + b'\3\0', samples + b'\4\xff')
  assert refusal(of_65284) == 'cannot identify image file'
  assert capfd.readouterr() == ('', '')
  assert not caplog.records


def test_a_decompression_bomb_is_refused():
  header = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0)
  bomb = b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', header) + png_chunk(b'IDAT', b'')
  with pytest.raises(images.UnreadableError, match=r'^Image size \(10000000000 pixels\)'):
    images.decode(bomb)


def test_a_small_file_of_very_many_pixels_is_refused():
  header = struct.pack('>IIBBBBB', 9, 8_388_619, 16, 0, 0, 0, 0)  # 75 million, below the limit
  content = png_chunk(b'IDAT', zlib.compress(bytes(100)))
  bomb = b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', header) + content
  with pytest.raises(images.UnreadableError, match='9 x 8388619 pixels in 57 bytes'):
    images.decode(bomb)


def test_a_large_picture_of_one_color_is_read():
  file = io.BytesIO()
  Image.new('1', (6000, 3000), 1).save(file, 'PNG', optimize=True)
  assert len(file.getvalue()) < 6000
  assert images.decode(file.getvalue()).getpixel((5999, 2999)) == (255, 255, 255)


def test_pillow_warns_nobody_and_then_does_as_before():
  """Of a large image, damaged EXIF or opacities: in a process without pytest's filters."""
  image, _, _ = palette_image()
  encoded = stored(image, 'PNG', exif=exif_block(1)[:-20], transparency=bytes(range(12)))
  program = f"""
import io, logging, warnings
from PIL import Image
before = logging.getLogger('PIL').level
from alexnet_jax.data import images

Image.MAX_IMAGE_PIXELS = {WIDTH * HEIGHT - 1}
encoded = {encoded}
assert images.decode(encoded).size == ({WIDTH}, {HEIGHT})
assert 'PIL' not in str(warnings.filters)
assert logging.getLogger('PIL').level == before

with warnings.catch_warnings(record=True) as caught:
  warnings.simplefilter('always')
  image = Image.open(io.BytesIO(encoded))
  image.getexif()
  image.convert('RGB')
print([warning.category.__name__ for warning in caught])
"""
  command = [sys.executable, '-W', 'error', '-c', program]
  ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
  assert ran.stderr == ''
  assert ran.stdout == "['DecompressionBombWarning', 'UserWarning', 'UserWarning']\n"


def test_threads_decode_at_once():
  rng = np.random.default_rng(0)
  originals = [rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8) for i in range(20)]
  encoded = [stored(image, 'PNG') for image in originals]
  with ThreadPoolExecutor(8) as pool:
    decoded = list(pool.map(pixels, encoded * 10))
  for image, original in zip(decoded, originals * 10, strict=True):
    np.testing.assert_array_equal(image, original)


def test_an_image_of_the_size_is_left_alone():
  image = Image.fromarray(colors()[:20, :20])
  assert images.fit_square(image, 20) is image


@pytest.mark.parametrize('shape', [(20, 36), (36, 20)])
def test_the_center_is_cut_out(shape):
  marked = np.zeros((*shape, 3), np.uint8)
  marked[shape[0] // 2 - 10 : shape[0] // 2 + 10, shape[1] // 2 - 10 : shape[1] // 2 + 10] = 255
  fitted = np.asarray(images.fit_square(Image.fromarray(marked), 20))
  assert fitted.shape == (20, 20, 3)
  assert np.all(fitted == 255)


def test_the_shorter_side_is_scaled_and_the_center_cut_out():
  rows, columns = np.mgrid[:48, :96]
  ramps = np.stack([2 * columns, 4 * rows, 0 * rows], axis=-1).astype(np.uint8)
  fitted = np.asarray(images.fit_square(Image.fromarray(ramps), 12)).astype(float)
  # A pixel of the result is four wide; they begin at column 24 and row 0.
  middle = 4 * np.arange(12) + 1.5
  inner = slice(2, -2)  # no border in sight
  np.testing.assert_allclose(fitted[:, inner, 0].std(axis=0), 0)
  np.testing.assert_allclose(fitted[0, inner, 0], 2 * (24 + middle[inner]), atol=1)
  np.testing.assert_allclose(fitted[inner, 0, 1], 4 * middle[inner], atol=1)


@pytest.mark.parametrize('resize', images.RESIZE_RULES)
@pytest.mark.parametrize('size', [(1, 1), (1, 5000), (5000, 1), (3, 2), (60_000, 2)])
def test_tiny_and_narrow_images_fit(size, resize):
  fitted = images.fit_square(Image.new('RGB', size, (10, 200, 30)), 64, resize)
  assert fitted.size == (64, 64)
  assert np.all(np.asarray(fitted) == (10, 200, 30))


def test_the_rule_is_that_of_pillow_resize():
  image = Image.fromarray(colors())  # 30 wide, 24 high
  expected = image.resize((16, 16), Image.Resampling.BICUBIC, box=(3, 0, 27, 24))
  np.testing.assert_array_equal(images.fit_square(image, 16), expected)


@pytest.mark.parametrize('size', [(30, 24), (24, 31), (29, 24), (37, 24), (24, 40), (24, 24)])
def test_the_center_of_torchvision_s_square_is_that_of_its_resize_and_center_crop(size):
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
  image = image.crop((0, 0, *size))
  width, height = (side * 32 // 24 for side in size)
  scaled = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
  top, left = round((height - 24) / 2), round((width - 24) / 2)
  fitted = np.asarray(images.fit_square(image, 32, 'torchvision'))
  np.testing.assert_array_equal(fitted[4:28, 4:28], scaled[top : top + 24, left : left + 24])


def test_torchvision_does_not_rotate():
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  encoded = stored(colors(), 'PNG', exif=exif)
  np.testing.assert_array_equal(images.decode(encoded, 'torchvision'), colors())
  assert images.decode(encoded).size == (HEIGHT, WIDTH)


def test_a_png_loses_nothing():
  encoded = images.encode(Image.fromarray(colors()), 'png')
  assert Image.open(io.BytesIO(encoded)).format == 'PNG'
  np.testing.assert_array_equal(pixels(encoded), colors())


def test_a_jpeg_is_of_quality_95_and_half_the_color():
  encoded = images.encode(Image.fromarray(colors()), 'jpeg')
  assert encoded == stored(colors(), 'JPEG', quality=95, subsampling='4:2:0')
  opened = Image.open(io.BytesIO(encoded))
  assert opened.format == 'JPEG'
  assert [component[1:3] for component in opened.layer] == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize('encoding', images.ENCODINGS)
def test_nothing_but_pixels_is_stored(encoding):
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  exif = Image.Exif()
  exif[SOFTWARE] = 'a program'
  bare = images.encode(images.decode(stored(colors(), 'PNG')), encoding)
  for kind, options in (('PNG', {'transparency': (1, 2, 3)}), ('WEBP', {'lossless': True})):
    described = stored(colors(), kind, exif=exif, icc_profile=profile, dpi=(9, 9), **options)
    assert images.encode(images.decode(described), encoding) == bare
  described = stored(colors(), 'JPEG', comment='hello', exif=exif, icc_profile=profile)
  plain = stored(colors(), 'JPEG')
  assert images.encode(images.decode(described), encoding) == images.encode(
    images.decode(plain), encoding
  )


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp'])  # Pillow itself turns TIFFs
def test_an_opened_image_is_shown_as_its_file_is_and_stays_as_it_was(kind):
  exif = Image.Exif()
  exif[ORIENTATION] = 8
  encoded = stored(colors(), kind, exif=exif)
  opened = Image.open(io.BytesIO(encoded))
  shown = images.as_shown(opened)
  np.testing.assert_array_equal(np.asarray(shown), pixels(encoded))
  assert shown.size == (HEIGHT, WIDTH)
  assert opened.size == (WIDTH, HEIGHT)
  assert opened.getexif()[ORIENTATION] == 8
  plain = Image.fromarray(colors())
  assert images.as_shown(plain) is plain


@pytest.mark.parametrize('kind', images.FORMATS)
def test_kinds_are_told_by_the_first_bytes(kind):
  encoded = stored(colors(), kind)
  assert images.kind_of(encoded[: images.HEAD_BYTES]) == kind
  assert Image.open(io.BytesIO(encoded)).format == kind


@pytest.mark.parametrize('kind', [kind for kind in images.FORMATS if kind in ('AVIF', 'JPEG2000')])
def test_newer_formats_are_read(kind):
  encoded = stored(colors(), kind, **({'quality': 95} if kind == 'AVIF' else {}))
  assert np.abs(pixels(encoded).astype(int) - colors()).mean() < 8


@pytest.mark.parametrize(
  ('head', 'kind'),
  [
    (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'HEIC'),
    (b'\0\0\0\x18ftypmif1\0\0\0\0mif1heic', 'HEIC'),
    (b'\xff\x0a', 'JPEG XL'),
    (b'8BPS\0\1', 'Photoshop'),
  ],
)
def test_kinds_that_pillow_does_not_read_are_named(head, kind):
  assert images.kind_of(head) == kind
  assert refusal(head) == f'{kind}: Pillow does not read it; convert to JPEG'


@pytest.mark.parametrize('head', [b'', b'BM', b'BM is short', b'P6 is one', b'RIFF1234WAVE', b'II'])
def test_other_files_are_of_no_kind(head):
  assert images.kind_of(head) == ''


@quiet
def test_a_png_with_very_much_text_or_profile_is_read():
  much = bytes(2**21)
  for name, start in (
    (b'zTXt', b'comment\0\0'),
    (b'iTXt', b'comment\0\1\0\0\0'),
    (b'iCCP', b'profile\0\0'),
  ):
    chunk = name + start + zlib.compress(much)
    chunk = struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', zlib.crc32(chunk))
    plain = stored(colors(), 'PNG')
    for place in (33, len(plain) - 12):  # behind the header, before the end
      if name != b'iCCP' or place == 33:
        np.testing.assert_array_equal(pixels(plain[:place] + chunk + plain[place:]), colors())
  text = PngImagePlugin.PngInfo()
  for number in range(70):
    text.add_text(f'part {number}', 'x' * 2**20)
  np.testing.assert_array_equal(pixels(stored(colors(), 'PNG', pnginfo=text)), colors())


@quiet
def test_a_png_with_very_much_text_stands_upright():
  exif = Image.Exif()
  exif[ORIENTATION] = 3
  encoded = stored(colors(), 'PNG', exif=exif)
  chunk = b'zTXtcomment\0\0' + zlib.compress(bytes(2**21))
  chunk = struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', zlib.crc32(chunk))
  np.testing.assert_array_equal(pixels(encoded[:33] + chunk + encoded[33:]), colors()[::-1, ::-1])
