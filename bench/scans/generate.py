"""Synthetic scans of Vietnamese administrative pages with labels, for training and measuring seal.py and frames.py.

`page(seed, inks)` draws one page in millimetres, "prints" and "scans" it. Everything follows from the seed. `inks`
chooses the family of ink textures: "tuning", "development" and mixtures of both ("mixed") for training and for finding
faults, "evaluation" for figures only; these share no texture with the others. Nothing is taken from a real document.
"""

from __future__ import annotations

import io
import itertools
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from gateway.demo import documents

FONTS = (
    "/usr/share/fonts/truetype/liberation2/LiberationSerif-{}.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSerif{}.ttf",
    "/usr/share/fonts/truetype/liberation2/LiberationSans-{}.ttf",
)
WORDS = [
    "thực",
    "hiện",
    "kế",
    "hoạch",
    "của",
    "tỉnh",
    "về",
    "việc",
    "quản",
    "lý",
    "văn",
    "bản",
    "điện",
    "tử",
    "trong",
    "cơ",
    "quan",
    "nhà",
    "nước",
    "các",
    "sở",
    "ban",
    "ngành",
    "và",
    "địa",
    "phương",
    "báo",
    "cáo",
    "kết",
    "quả",
    "trước",
    "ngày",
    "chủ",
    "trì",
    "phối",
    "hợp",
    "hướng",
    "dẫn",
    "kiểm",
    "tra",
    "đôn",
    "đốc",
    "tổ",
    "chức",
    "triển",
    "khai",
    "nhiệm",
    "vụ",
    "công",
    "tác",
    "năm",
    "theo",
    "quy",
    "định",
    "hiện",
    "hành",
    "ban",
    "hành",
    "kèm",
    "theo",
    "quyết",
    "định",
    "số",
    "điều",
    "khoản",
    "mục",
    "nội",
    "dung",
    "kinh",
    "phí",
    "đề",
    "nghị",
    "đơn",
    "vị",
    "liên",
    "quan",
]
AGENCIES = (
    "ỦY BAN NHÂN DÂN TỈNH",
    "SỞ NỘI VỤ TỈNH",
    "HỘI ĐỒNG NHÂN DÂN HUYỆN",
    "PHÒNG TÀI CHÍNH KẾ HOẠCH",
    "CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM",
    "BỘ XÂY DỰNG",
    "TRƯỜNG TRUNG HỌC PHỔ THÔNG",
    "CÔNG TY TRÁCH NHIỆM HỮU HẠN MỘT THÀNH VIÊN",
)
PLACES = ("BÌNH MINH", "HÒA SƠN", "ĐÔNG GIANG", "THANH TRUNG", "TÂN PHÚ", "VĨNH AN")
FRAMES = {  # value: (kind, texts, width mm); 8 mm high (rules 2.1, 2.2)
    "mat": ("secrecy", ("MẬT",), 20),
    "toi_mat": ("secrecy", ("TỐI MẬT",), 30),
    "tuyet_mat": ("secrecy", ("TUYỆT MẬT",), 40),
    "khan": ("urgency", ("KHẨN",), 20),
    "thuong_khan": ("urgency", ("THƯỢNG KHẨN",), 40),
    "hoa_toc": ("urgency", ("HỎA TỐC", "HOẢ TỐC"), 30),
    "hoa_toc_hen_gio": ("urgency", ("HỎA TỐC HẸN GIỜ", "HOẢ TỐC HẸN GIỜ"), 44),
}
RED_INKS = ((205, 28, 40), (190, 20, 62), (222, 45, 30), (226, 80, 92), (160, 28, 38), (214, 20, 20), (200, 60, 70))
OTHER_INKS = ((30, 50, 160), (60, 40, 140), (20, 110, 70), (40, 40, 48), (20, 90, 170), (90, 40, 120))
PEN_INKS = ((20, 40, 150), (35, 60, 190), (28, 28, 36), (10, 20, 110), (50, 55, 70))
NEGATIVES = (
    "den",
    "frame",
    "logo",
    "emblem",
    "flag",
    "photo",
    "heading",
    "circled",
    "red_logo",
    "chart",
    "blue_stamp",
    "oval",
    "name_stamp",
    "clock",
    "scribble",
)


@dataclass
class Truth:
    """Labels. seals: (x, y, radius) mm; frames: (kind, value, left, top, right, bottom) mm; hand: a signature is beside
    or across the seal; rings: round stamps in other inks (right only where colour cannot be told)."""

    seals: list[tuple[float, float, float]] = field(default_factory=list)
    rings: list[tuple[float, float, float]] = field(default_factory=list)
    frames: list[tuple[str, str, float, float, float, float]] = field(default_factory=list)
    hand: bool = False
    negatives: list[str] = field(default_factory=list)
    texture: str = ""


@dataclass
class Scan:
    """image: RGB or grey (h, w[, 3]) uint8 as scanned; mode: colour, grey, bilevel."""

    image: np.ndarray
    dpi: int
    mode: str
    truth: Truth
    quality: int = 80

    def jpeg(self) -> bytes:
        out = io.BytesIO()
        subsampling = 2 if self.quality < 80 else 0
        Pillow.fromarray(self.image).save(
            out, "JPEG", quality=self.quality, subsampling=subsampling, dpi=(self.dpi,) * 2
        )
        return out.getvalue()

    def pdf(self) -> bytes:
        """The scan as the only thing on a PDF page, as scanners write it."""
        height, width = self.image.shape[:2]
        if self.mode == "bilevel":
            body = zlib.compress(np.packbits(self.image > 127, axis=1).tobytes())
            look = b"/ColorSpace /DeviceGray /BitsPerComponent 1 /Filter /FlateDecode"
        else:
            body = self.jpeg()
            space = b"/DeviceGray" if self.image.ndim == 2 else b"/DeviceRGB"
            look = b"/ColorSpace " + space + b" /BitsPerComponent 8 /Filter /DCTDecode"
        w, h = width * 72 / self.dpi, height * 72 / self.dpi
        content = f"q {w:.2f} 0 0 {h:.2f} 0 0 cm /I Do Q".encode()
        parts = [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {w:.2f} {h:.2f}] /Contents 4 0 R "
            f"/Resources << /XObject << /I 5 0 R >> >> >>".encode(),
            b"<< /Length %d >> stream\n%s\nendstream" % (len(content), content),
            b"<< /Type /XObject /Subtype /Image /Width %d /Height %d %s /Length %d >> stream\n%s\nendstream"
            % (width, height, look, len(body), body),
        ]
        out, places = b"%PDF-1.4\n", []
        for number, part in enumerate(parts, 1):
            places.append(len(out))
            out += b"%d 0 obj %s endobj\n" % (number, part)
        table = b"".join(b"%010d 00000 n \n" % place for place in places)
        return (
            out
            + b"xref\n0 6\n0000000000 65535 f \n%strailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
            % (
                table,
                len(out),
            )
        )


@cache
def _font(which: int, bold: bool, size: int) -> ImageFont.FreeTypeFont:
    name = FONTS[which].format(("-Bold" if bold else "") if which == 1 else ("Bold" if bold else "Regular"))
    if not Path(name).exists():  # not root, nothing installed: the face that comes with the demonstration
        name = str(documents.fonts()["bold" if bold else "regular"])
    return ImageFont.truetype(name, max(size, 6))


@cache
def _noise_tile() -> np.ndarray:
    """Gaussian noise (1024, 1024 + 3600, 3), its columns repeating, so that a page of 300 dpi finds its width in it."""
    tile = np.random.default_rng(7).standard_normal((1024, 1024, 3)).astype(np.float32)
    return np.concatenate([tile] * 5, axis=1)[:, :4624]


def _lit(
    image: np.ndarray,
    light: np.ndarray,
    start: tuple[int, int],
    amount: float,
    colour_share: float,
    black: float,
    burnt: float | None,
) -> np.ndarray:
    """An image under a light that varies (9, 7, 3), with noise and the scanner's contrast. Done in strips that fit the
    processor's cache: at once it took three quarters of the time of drawing a page."""
    h, w = image.shape[:2]
    factor = burnt or 1.0
    light = cv2.resize(light * np.float32((255 - black) / 255 / 255 * factor), (w, 9), interpolation=cv2.INTER_LINEAR)
    offset = np.full((1, 1, 3), (black - (20 if burnt else 0)) * factor, np.float32)
    mix = np.float32(amount * factor) * (
        np.float32(colour_share) * np.eye(3, dtype=np.float32)
        + np.float32(1 - colour_share) * np.array([[1, 0, 0]] * 3, np.float32)
    )
    noise = _noise_tile()
    out = np.empty_like(image)
    rows = (np.arange(h, dtype=np.float32) + 0.5) * 9 / h - 0.5
    upper = np.clip(np.floor(rows), 0, 7).astype(np.int64)
    part = np.clip(rows - upper, 0, 1).astype(np.float32)[:, None, None]
    top = 0
    while top < h:
        first = (start[0] + top) % 1024
        bottom = min(top + 32, h, top + 1024 - first)
        here = slice(top, bottom)
        lit = light[upper[here]] * (1 - part[here]) + light[upper[here] + 1] * part[here]
        value = cv2.multiply(image[here], lit, dtype=cv2.CV_32F)
        grain = cv2.transform(noise[first : first + bottom - top, start[1] : start[1] + w], mix)
        cv2.add(value, grain, dst=value)
        value += offset
        out[here] = cv2.convertScaleAbs(np.maximum(value, 0, out=value))
        top = bottom
    return out


class Sheet:
    """A page being drawn: an RGB canvas in pixels of `scale` per mm, on which inks are laid by multiplication."""

    def __init__(self, random: np.random.Generator, dpi: int, width: float = 210.0, height: float = 297.0) -> None:
        self.random = random
        self.scale = dpi / 25.4
        self.width, self.height = width, height
        self.canvas = np.full((round(height * self.scale), round(width * self.scale), 3), 255, np.uint8)
        self.family = 0 if random.random() < 0.8 else int(random.integers(0, 3))

    def ink(self, mask: np.ndarray, x: float, y: float, colour: tuple[int, ...]) -> None:
        """Lay ink: mask (h, w) 0..255 with its left top corner at x, y mm."""
        left, top = round(x * self.scale), round(y * self.scale)
        h, w = mask.shape
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + w, self.canvas.shape[1]), min(top + h, self.canvas.shape[0])
        if x0 >= x1 or y0 >= y1:
            return
        part = mask[y0 - top : y1 - top, x0 - left : x1 - left]
        region = self.canvas[y0:y1, x0:x1]
        for channel in range(3):
            keep = cv2.bitwise_not(cv2.multiply(part, 255 - int(colour[channel]), scale=1 / 255))
            region[:, :, channel] = cv2.multiply(region[:, :, channel], keep, scale=1 / 255)

    def picture(self, image: np.ndarray, x: float, y: float) -> None:
        """Print a colour picture (h, w, 3) with its left top corner at x, y mm."""
        left, top = round(x * self.scale), round(y * self.scale)
        h, w = image.shape[:2]
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + w, self.canvas.shape[1]), min(top + h, self.canvas.shape[0])
        if x0 < x1 and y0 < y1:
            region = self.canvas[y0:y1, x0:x1]
            region[:] = cv2.multiply(region, image[y0 - top : y1 - top, x0 - left : x1 - left], scale=1 / 255)

    def blank(self, width: float, height: float) -> tuple[Pillow.Image, ImageDraw.ImageDraw]:
        image = Pillow.new("L", (max(round(width * self.scale), 2), max(round(height * self.scale), 2)), 0)
        return image, ImageDraw.Draw(image)

    def font(self, points: float, bold: bool = False, which: int | None = None) -> ImageFont.FreeTypeFont:
        return _font(self.family if which is None else which, bold, round(points * 25.4 / 72 * self.scale))

    def text(
        self,
        text: str,
        x: float,
        y: float,
        points: float,
        *,
        bold: bool = False,
        colour=(20, 20, 24),
        centre: bool = False,
    ) -> None:
        font = self.font(points, bold)
        box = font.getbbox(text)
        image = Pillow.new("L", (box[2] + 4, box[3] + 4), 0)
        ImageDraw.Draw(image).text((1, 1), text, fill=255, font=font)
        self.ink(np.asarray(image), x - (box[2] / 2 / self.scale if centre else 0), y, colour)


def _turned(mask: np.ndarray, angle: float) -> np.ndarray:
    """A mask turned about its middle, grown so that nothing is lost."""
    height, width = mask.shape
    side = int(np.hypot(height, width)) + 2
    out = np.zeros((side, side), np.uint8)
    out[(side - height) // 2 : (side - height) // 2 + height, (side - width) // 2 : (side - width) // 2 + width] = mask
    return cv2.warpAffine(out, cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1), (side, side))


def _field(random: np.random.Generator, shape: tuple[int, int], size: float) -> np.ndarray:
    """A smooth random field, mean 0, variance about 1; size: length of its lumps in pixels."""
    h, w = max(int(shape[0] / size) + 3, 3), max(int(shape[1] / size) + 3, 3)
    small = random.standard_normal((h, w)).astype(np.float32)
    return cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def textured(random: np.random.Generator, mask: np.ndarray, inks: str, scale: float) -> tuple[np.ndarray, str]:
    """A stamped mask as ink takes to paper. scale: pixels per mm."""
    m = mask.astype(np.float32) / 255
    strength = random.uniform(0.4, 1.0)
    names = []
    # "mixed": two or three of the textures for training over each other.
    families = [inks] if inks != "mixed" else random.choice(["tuning", "development"], int(random.integers(2, 4)))
    for family in families:
        m, name = _texture(random, np.clip(m, 0, 1), str(family), scale)
        names.append(name)
    if inks == "mixed":  # ink that is hardly there anywhere teaches nothing
        m *= min(0.5 / max(float(m[mask > 127].mean()), 0.05), 1.6)
    return (np.clip(m * strength, 0, 1) * 255).astype(np.uint8), "+".join(names)


def _texture(random: np.random.Generator, m: np.ndarray, inks: str, scale: float) -> tuple[np.ndarray, str]:
    shape = m.shape
    if inks == "tuning":
        name = str(random.choice(["even", "grain", "pressure", "dry", "blotch"]))
        if name == "grain":
            m *= np.clip(0.8 + 0.35 * _field(random, shape, 0.12 * scale), 0, 1)
        elif name == "pressure":
            y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
            angle = random.uniform(0, 6.3)
            m *= np.clip(0.75 + random.uniform(0.2, 0.6) * (np.cos(angle) * x + np.sin(angle) * y), 0.08, 1)
        elif name == "dry":
            lumps = _field(random, shape, random.uniform(0.3, 0.8) * scale)
            m *= np.clip(1.2 * (lumps > random.uniform(-1.1, -0.2)), 0.12, 1)
        elif name == "blotch":
            m *= np.clip(0.75 + 0.4 * _field(random, shape, random.uniform(2, 6) * scale), 0.15, 1)
            m = np.clip(cv2.GaussianBlur(m, (0, 0), 0.1 * scale) * 1.1, 0, 1)
    elif inks == "development":
        name = str(random.choice(["pale", "ghost", "streak", "worn", "stipple"]))
        if name == "pale":  # the pad is almost dry everywhere
            lumps = _field(random, shape, random.uniform(1, 4) * scale)
            m *= random.uniform(0.35, 0.6) * np.clip(1 + 0.2 * lumps, 0, 1)
        elif name == "ghost":  # the stamp touched the paper twice
            dx, dy = random.uniform(-0.8, 0.8, 2) * scale
            moved = cv2.warpAffine(m, np.float32([[1, 0, dx], [0, 1, dy]]), (shape[1], shape[0]))
            m = np.maximum(m, random.uniform(0.25, 0.6) * moved)
        elif name == "streak":  # parallel lines without ink, from wiping or from a printer's head
            y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / scale
            angle = random.uniform(0, np.pi)
            across = np.cos(angle) * x + np.sin(angle) * y
            line = _field(random, (1, 400), random.uniform(2, 6))[0]
            m *= np.clip(0.75 + 0.5 * np.interp(across * 4 % 399, np.arange(400), line), 0.1, 1).astype(np.float32)
        elif name == "worn":  # thin lines of the rubber are gone in places, thick ones ragged
            soft = cv2.GaussianBlur(m, (0, 0), max(0.12 * scale, 0.6))
            m = 1 / (1 + np.exp(-9 * (soft - 0.42 - 0.14 * _field(random, shape, random.uniform(0.6, 2) * scale))))
        elif name == "stipple":  # rough paper takes the ink in dots
            m *= np.where(_field(random, shape, max(0.18 * scale, 1.0)) > random.uniform(-0.7, 0.1), 1, 0.12)
    else:
        name = str(random.choice(["starved", "fibre", "halo", "spot", "screen", "smear"]))
        if name == "starved":  # several octaves of holes
            lumps = sum(_field(random, shape, s * scale) * a for s, a in ((2.5, 0.6), (1.0, 0.5), (0.35, 0.5)))
            m *= 1 / (1 + np.exp(-5 * (lumps + random.uniform(0.2, 0.9))))
        elif name == "fibre":  # paper fibres take no ink
            grain = cv2.GaussianBlur(_field(random, shape, 0.15 * scale), (0, 0), sigmaX=0.6 * scale, sigmaY=0.1)
            grain += cv2.GaussianBlur(_field(random, shape, 0.15 * scale), (0, 0), sigmaX=0.1, sigmaY=0.6 * scale)
            m *= np.clip(0.85 - 1.2 * np.abs(grain), 0.15, 1)
        elif name == "halo":  # ink pressed out to the edges of the relief
            edge = np.abs(cv2.GaussianBlur(m, (0, 0), 0.06 * scale) - cv2.GaussianBlur(m, (0, 0), 0.25 * scale))
            m = np.clip(m * random.uniform(0.35, 0.6) + 2.2 * edge * (m > 0.1), 0, 1)
        elif name == "spot":  # pressed on an uneven ground: one part is missing
            y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
            cx, cy = random.uniform(-0.9, 0.9, 2)
            m *= np.clip(np.hypot(x - cx, y - cy) * random.uniform(1.0, 2.0) - 0.15, 0.03, 1)
        elif name == "screen":  # a seal printed by an ink-jet: dots
            yy, xx = np.mgrid[0 : shape[0], 0 : shape[1]]
            pitch = max(0.28 * scale, 1.5)
            dots = np.cos(2 * np.pi * xx / pitch) * np.cos(2 * np.pi * yy / pitch)
            m *= np.clip(0.65 + 0.5 * dots, 0.1, 1)
        elif name == "smear":
            length = max(int(random.uniform(0.4, 1.0) * scale), 2)
            kernel = np.zeros((length, length), np.float32)
            kernel[np.arange(length), np.arange(length)] = 1 / length
            m = np.maximum(0.75 * m, cv2.filter2D(m, -1, kernel))
            m *= np.clip(0.85 + 0.25 * _field(random, shape, 0.2 * scale), 0, 1)
    return m, name


def _star(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: int = 255, turn: float = 0.0) -> None:
    points = []
    for i in range(10):
        angle = -np.pi / 2 + i * np.pi / 5 + turn
        size = r if i % 2 == 0 else r * 0.4
        points.append((x + size * np.cos(angle), y + size * np.sin(angle)))
    draw.polygon(points, fill=fill)


def seal_mask(random: np.random.Generator, radius: float, scale: float, plain: bool = False) -> np.ndarray:
    """A round seal, (n, n) 0..255, drawn at twice its size and reduced. radius in mm; scale: pixels per mm."""
    s = scale * 2
    side = int(2 * radius * s + 0.6 * s)
    image = Pillow.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    c = side / 2

    def ring(r: float, thick: float) -> None:
        draw.ellipse([c - r * s, c - r * s, c + r * s, c + r * s], outline=255, width=max(round(thick * s), 1))

    thick = random.uniform(0.5, 1.7)
    ring(radius, thick)
    text_out = radius - thick - random.uniform(0.4, 1.0)
    if random.random() < 0.55:
        gap = random.uniform(0.4, 0.9)
        ring(radius - thick - gap, random.uniform(0.2, 0.5))
        text_out -= gap
    inner = radius * random.uniform(0.52, 0.68)
    if random.random() < 0.96:
        ring(inner, random.uniform(0.2, 0.7))
        if random.random() < 0.3:
            ring(inner - random.uniform(0.6, 1.0), 0.25)
    if not plain:
        band = text_out - inner
        height = band * random.uniform(0.5, 0.8)
        which = int(random.integers(0, 3))
        font = _font(which, bool(random.random() < 0.7), round(height * s * 1.15))
        middle = inner + band / 2
        words = f"{random.choice(AGENCIES)} {random.choice(PLACES)}"
        arcs = [(words, random.uniform(200, 320), -90.0, False)]
        if random.random() < 0.35:
            arcs.append((str(random.choice(PLACES)), random.uniform(50, 90), 90.0, True))
        for words, sweep, centre, upright in arcs:
            per = np.radians(sweep) / max(len(words), 1)
            for i, letter in enumerate(words):
                place = (i - (len(words) - 1) / 2) * per
                angle = np.radians(centre) + (place if not upright else -place)
                cell = Pillow.new("L", (int(height * s * 2), int(height * s * 2)), 0)
                ImageDraw.Draw(cell).text((height * s, height * s), letter, fill=255, font=font, anchor="mm")
                turn = -np.degrees(angle) - 90 if not upright else 90 - np.degrees(angle)
                cell = cell.rotate(turn, resample=Pillow.Resampling.BILINEAR)
                px, py = c + middle * s * np.cos(angle), c + middle * s * np.sin(angle)
                image.paste(255, (int(px - cell.width / 2), int(py - cell.height / 2)), cell)
        for angle in [90.0] if len(arcs) == 1 else [20.0, 160.0]:
            a = np.radians(angle)
            _star(draw, c + middle * s * np.cos(a), c + middle * s * np.sin(a), height * 0.4 * s)
    kind = random.choice(["star", "emblem", "text", "open", "emblem"])
    if kind == "star":
        _star(draw, c, c, inner * random.uniform(0.4, 0.85) * s)
    elif kind == "emblem":
        core = inner * 0.8
        for i in range(2):
            r = core * (1 - 0.16 * i)
            draw.arc([c - r * s, c - r * s, c + r * s, c + r * s], 300, 240, fill=255, width=max(int(0.35 * s), 1))
        for i in range(int(random.integers(24, 44))):  # ears of rice
            a = np.radians(-60 + 300 * i / 40)
            r0, r1 = core * 0.72, core * random.uniform(0.9, 1.0)
            draw.line(
                [
                    c + r0 * s * np.cos(a),
                    c + r0 * s * np.sin(a),
                    c + r1 * s * np.cos(a + 0.1),
                    c + r1 * s * np.sin(a + 0.1),
                ],
                fill=255,
                width=max(int(random.uniform(0.3, 0.6) * s), 1),
            )
        _star(draw, c, c - core * 0.25 * s, core * 0.28 * s)
        for i in range(12):
            a = 2 * np.pi * i / 12
            y = c + core * 0.42 * s
            draw.line(
                [c, y, c + core * 0.24 * s * np.cos(a), y + core * 0.24 * s * np.sin(a)],
                fill=255,
                width=max(int(0.3 * s), 1),
            )
        draw.rectangle([c - core * 0.4 * s, c + core * 0.66 * s, c + core * 0.4 * s, c + core * 0.86 * s], fill=255)
    elif kind == "text":
        for row in range(int(random.integers(1, 4))):
            words = str(random.choice(["VĂN PHÒNG", "SỞ", "PHÒNG", "TƯ PHÁP", "CÔNG TY", "TNHH", "NỘI VỤ"]))
            font = _font(0, True, round(inner * 0.36 * s))
            draw.text((c, c + (row - 0.7) * inner * 0.42 * s), words, fill=255, font=font, anchor="mm")
    small = image.resize((side // 2, side // 2), Pillow.Resampling.BOX)
    return np.asarray(small.rotate(random.uniform(-25, 25), resample=Pillow.Resampling.BILINEAR))


def stroke_mask(random: np.random.Generator, width: float, height: float, scale: float) -> np.ndarray:
    """A signature: a few fast loops, (h, w) 0..255."""
    w, h = round(width * scale), round(height * scale)
    mask = np.zeros((h, w), np.uint8)
    for _ in range(int(random.integers(1, 4))):
        knots = int(random.integers(6, 14))
        x = np.cumsum(random.normal(0.5, 1.0, knots))
        y = np.cumsum(random.normal(0, 0.5, knots)) * 0.4 + random.normal(0, 1, knots)
        t = np.linspace(0, knots - 1, 500)
        px, py = (
            np.convolve(np.pad(np.interp(t, np.arange(knots), v), 30, "edge"), np.hanning(61) / 30, "valid")
            for v in (x, y)
        )
        px = (px - px.min()) / max(np.ptp(px), 1e-3) * w * 0.94 + w * 0.03
        py = (py - py.min()) / max(np.ptp(py), 1e-3) * h * random.uniform(0.5, 0.94) + h * 0.03
        pen = random.uniform(0.3, 0.8) * scale
        points = np.stack([px, py], axis=1)
        for a, b in itertools.pairwise(points):
            cv2.line(
                mask,
                tuple(np.int32(a)),
                tuple(np.int32(b)),
                255,
                max(round(pen * random.uniform(0.8, 1.2)), 1),
                cv2.LINE_AA,
            )
    if random.random() < 0.4:  # the last stroke, under the name
        y = int(h * random.uniform(0.7, 0.95))
        cv2.line(
            mask, (0, y), (w - 1, int(y * random.uniform(0.85, 1.0))), 255, max(round(0.4 * scale), 1), cv2.LINE_AA
        )
    return mask


def frame_mask(
    random: np.random.Generator, text: str, width: float, scale: float, double: bool, which: int = 0
) -> tuple[np.ndarray, float, float]:
    """A mark in its frame; returns the mask and the outer size in mm. The double border stands 1 mm outside."""
    height = 8.0
    grow = 1.0 if double else 0.0
    s = scale * 2
    line = random.uniform(0.25, 0.55)
    pad = grow + 1
    w, h = (width + 2 * pad) * s, (height + 2 * pad) * s
    image = Pillow.new("L", (round(w), round(h)), 0)
    draw = ImageDraw.Draw(image)
    draw.rectangle([pad * s, pad * s, w - pad * s, h - pad * s], outline=255, width=max(round(line * s), 1))
    if double:
        p = (pad - 1) * s
        draw.rectangle([p, p, w - p, h - p], outline=255, width=max(round(line * s), 1))
    points = random.uniform(12.5, 14.5)
    while True:
        font = _font(which, True, round(points * 25.4 / 72 * s))
        box = font.getbbox(text)
        if box[2] - box[0] < (width - 1.6) * s or points < 8:
            break
        points -= 0.5
    draw.text((w / 2, h / 2), text, fill=255, font=font, anchor="mm")
    image = image.resize((round(w / 2), round(h / 2)), Pillow.Resampling.BOX)
    return np.asarray(image), width + 2 * grow, height + 2 * grow


def _body(sheet: Sheet, free: bool = False) -> None:
    """The text of a page: heading, paragraphs, sometimes a table. free: the place of marks is left free."""
    random = sheet.random
    first = random.random() < 0.6
    y = random.uniform(15, 25)
    if first:
        sheet.text(f"{random.choice(AGENCIES[:4])} {random.choice(PLACES)}", 62, y, 12, bold=True, centre=True)
        sheet.text("CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM", 148, y, 12, bold=True, centre=True)
        sheet.text("Độc lập - Tự do - Hạnh phúc", 148, y + 6, 13, bold=True, centre=True)
        sheet.text(f"Số: {random.integers(1, 3000)}/QĐ-UBND", 50, y + 14, 13)
        sheet.text(
            f"{random.choice(PLACES).title()}, ngày {random.integers(1, 29)} tháng {random.integers(1, 13)} năm 2025",
            120,
            y + 14,
            13,
        )
        y += random.uniform(30, 55)
    if free:
        y = max(y, random.uniform(95, 112))
    bottom = random.uniform(140, 275)
    points = random.uniform(12.5, 14)
    pitch = points * 0.353 * random.uniform(1.15, 1.5)
    while y < bottom:
        count = int(random.integers(9, 14))
        line = " ".join(random.choice(WORDS, count))
        sheet.text(line, 30 + (10 if random.random() < 0.2 else 0), y, points, bold=bool(random.random() < 0.05))
        y += pitch + (3 if random.random() < 0.2 else 0)
    if random.random() < 0.25:
        top, left = random.uniform(60, 180), 30
        image, draw = sheet.blank(160, 70)
        rows, columns = int(random.integers(3, 8)), int(random.integers(2, 6))
        for i in range(rows + 1):
            v = i * (image.height - 3) / rows
            draw.line([0, v, image.width, v], fill=255, width=max(round(0.2 * sheet.scale), 1))
        for i in range(columns + 1):
            v = i * (image.width - 3) / columns
            draw.line([v, 0, v, image.height], fill=255, width=max(round(0.2 * sheet.scale), 1))
        sheet.ink(np.asarray(image), left, top, (25, 25, 28))


def _block(sheet: Sheet, inks: str, truth: Truth, with_seal: bool, with_hand: bool) -> None:
    """Title, seal, signature, name: lower right, or anywhere."""
    random = sheet.random
    x = random.uniform(95, 150) if random.random() < 0.8 else random.uniform(45, 165)
    y = random.uniform(120, 235) if random.random() < 0.85 else random.uniform(45, 240)
    sheet.text("TM. ỦY BAN NHÂN DÂN", x + 15, y, 13, bold=True, centre=True)
    sheet.text("KT. CHỦ TỊCH", x + 15, y + 6, 13, bold=True, centre=True)
    sheet.text("PHÓ CHỦ TỊCH", x + 15, y + 12, 13, bold=True, centre=True)
    sheet.text(f"Nguyễn Văn {random.choice(PLACES).title()}", x + 15, y + 40, 13, bold=True, centre=True)
    cx, cy = x + random.uniform(-12, 2), y + random.uniform(20, 32)
    if with_seal:
        _seal(sheet, inks, truth, cx, cy)
    if with_hand:
        w, h = random.uniform(25, 50), random.uniform(9, 22)
        mask = stroke_mask(random, w, h, sheet.scale)
        strength = random.uniform(0.7, 1.0)
        sheet.ink(
            (mask * strength).astype(np.uint8),
            x + random.uniform(-6, 4),
            y + 17,
            PEN_INKS[random.integers(0, len(PEN_INKS))],
        )
        truth.hand = True


def _seal(sheet: Sheet, inks: str, truth: Truth, x: float, y: float, other: bool = False) -> None:
    random = sheet.random
    radius = random.uniform(14, 23) if random.random() < 0.5 else random.uniform(16, 20)
    mask, truth.texture = textured(random, seal_mask(random, radius, sheet.scale), inks, sheet.scale)
    if random.random() < 0.15 and not other:  # the pad had no ink on one side, or the stamp was tilted
        middle, width = random.uniform(0, 2 * np.pi), random.uniform(0.3, 1.0)
        yy, xx = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]] - mask.shape[0] / 2
        away = np.abs((np.arctan2(yy, xx) - middle + np.pi) % (2 * np.pi) - np.pi)
        mask = (mask * np.clip((away - width) * 3 + 0.5, random.uniform(0.0, 0.3), 1)).astype(np.uint8)
    inks_of = OTHER_INKS if other else RED_INKS
    colour = np.clip(np.array(inks_of[random.integers(0, len(inks_of))]) + random.normal(0, 8, 3), 0, 255)
    sheet.ink(
        mask, x - mask.shape[1] / 2 / sheet.scale, y - mask.shape[0] / 2 / sheet.scale, tuple(int(c) for c in colour)
    )
    (truth.rings if other else truth.seals).append((x, y, radius))


def _place(random: np.random.Generator, w: float, h: float) -> tuple[float, float]:
    return random.uniform(5, max(205 - w, 6)), random.uniform(5, max(290 - h, 6))


def _red(random: np.random.Generator) -> tuple[int, ...]:
    return tuple(
        int(v) for v in np.clip(np.array(RED_INKS[random.integers(0, len(RED_INKS))]) + random.normal(0, 8, 3), 0, 255)
    )


def _negative(sheet: Sheet, kind: str, inks: str, truth: Truth) -> None:
    random, s = sheet.random, sheet.scale
    truth.negatives.append(kind)
    red = _red(random)
    if kind in ("den", "name_stamp", "oval"):
        if kind == "den":
            w, h = (50.0, 35.0) if random.random() < 0.8 else (35.0, 50.0)
            image, draw = sheet.blank(w, h)
            p = max(round(random.uniform(0.3, 0.9) * s), 1)
            draw.rectangle([1, 1, image.width - 2, image.height - 2], outline=255, width=p)
            font = sheet.font(9, True, 0)
            draw.text((image.width / 2, 2.5 * s), str(random.choice(AGENCIES[:4])), fill=255, font=font, anchor="mm")
            draw.text(
                (image.width * 0.15, image.height * 0.35), "ĐẾN", fill=255, font=sheet.font(14, True, 0), anchor="mm"
            )
            for row in range(4):
                y = (10 + row * 6) * s
                draw.text(
                    (w * 0.3 * s, y),
                    ("Số:", "Ngày:", "Chuyển:", "Lưu hồ sơ số:")[row],
                    fill=255,
                    font=sheet.font(9, False, 0),
                )
                for dot in range(12):
                    draw.point((w * 0.6 * s + dot * s, y + 4 * s), fill=255)
            draw.line([0, 5 * s, image.width, 5 * s], fill=255, width=max(p // 2, 1))
        elif kind == "oval":
            w, h = random.uniform(34, 48), random.uniform(18, 25)
            image, draw = sheet.blank(w, h)
            for inset in (0.0, 3.2):
                d = inset * s
                draw.ellipse(
                    [1 + d, 1 + d, image.width - 2 - d, image.height - 2 - d], outline=255, width=max(round(0.6 * s), 1)
                )
            draw.text(
                (image.width / 2, image.height / 2), "ĐÃ THU", fill=255, font=sheet.font(14, True, 0), anchor="mm"
            )
        else:
            w, h = random.uniform(25, 55), random.uniform(8, 16)
            image, draw = sheet.blank(w, h)
            font = sheet.font(random.uniform(12, 18), True, 0)
            draw.text(
                (image.width / 2, image.height / 2),
                f"Lê Văn {random.choice(PLACES).title()}",
                fill=255,
                font=font,
                anchor="mm",
            )
        mask, _ = textured(random, np.asarray(image), inks, s)
        mask = _turned(mask, random.uniform(-8, 8))
        x, y = _place(random, w, h)
        colour = red if random.random() < 0.75 else OTHER_INKS[random.integers(0, len(OTHER_INKS))]
        sheet.ink(mask, x, y, colour)
    elif kind == "frame":
        add_frame(sheet, inks, truth)
    elif kind in ("logo", "red_logo"):
        r = random.uniform(6, 21)
        image, draw = sheet.blank(2 * r, 2 * r)
        c = image.width / 2
        x, y = _place(random, 2 * r, 2 * r)
        style = int(random.integers(0, 4))
        if style == 0:  # a full disc with a sign left white
            draw.ellipse([1, 1, image.width - 2, image.height - 2], fill=255)
            _star(draw, c, c, r * random.uniform(0.4, 0.8) * s, fill=0)
        elif style == 1:  # three leaves
            for i in range(3):
                a = i * 2.094
                draw.ellipse(
                    (
                        c + r * s * (0.5 * np.cos(a) - 0.45),
                        c + r * s * (0.5 * np.sin(a) - 0.45),
                        c + r * s * (0.5 * np.cos(a) + 0.45),
                        c + r * s * (0.5 * np.sin(a) + 0.45),
                    ),
                    fill=255,
                )
        elif style == 2:  # broad broken ring
            draw.arc(
                [2, 2, image.width - 3, image.height - 3],
                30,
                random.uniform(200, 340),
                fill=255,
                width=max(round(r * 0.3 * s), 2),
            )
            draw.text((c, c), "VN", fill=255, font=sheet.font(r * 1.6, True, 2), anchor="mm")
        else:  # half disc
            draw.pieslice(
                [1, 1, image.width - 2, image.height - 2], random.uniform(0, 180), random.uniform(200, 330), fill=255
            )
        sheet.ink(
            np.asarray(image), x, y, red if kind == "red_logo" else OTHER_INKS[random.integers(0, len(OTHER_INKS))]
        )
        if random.random() < 0.5:  # a second colour
            second, draw = sheet.blank(2 * r, 2 * r)
            draw.ellipse([c * 0.6, c * 0.6, c * 1.4, c * 1.4], fill=255)
            sheet.ink(np.asarray(second), x, y, ((240, 200, 30), (20, 60, 160), (20, 140, 60))[random.integers(0, 3)])
    elif kind == "emblem":  # the national emblem: gold wreath about a red disc with a gold star
        r = random.uniform(7, 20)
        side = int(2 * r * s)
        picture = Pillow.new("RGB", (side, side), (255, 255, 255))
        draw = ImageDraw.Draw(picture)
        c = side / 2
        draw.ellipse([1, 1, side - 2, side - 2], fill=(245, 200, 40))
        draw.ellipse([c * 0.2, c * 0.2, c * 1.8, c * 1.8], fill=(218, 37, 29))
        for i in range(40):
            a = 2 * np.pi * i / 40
            draw.line(
                [
                    c + c * 0.78 * np.cos(a),
                    c + c * 0.78 * np.sin(a),
                    c + c * 0.97 * np.cos(a + 0.12),
                    c + c * 0.97 * np.sin(a + 0.12),
                ],
                fill=(200, 120, 20),
                width=max(round(0.25 * s), 1),
            )
        draw.pieslice([2, 2, side - 3, side - 3], 60, 120, fill=(218, 37, 29))
        star, pen = Pillow.new("L", (side, side), 0), None
        pen = ImageDraw.Draw(star)
        _star(pen, c, c * 0.75, c * 0.3)
        picture.paste((255, 220, 0), (0, 0), star)
        sheet.picture(np.asarray(picture), *_place(random, 2 * r, 2 * r))
    elif kind == "flag":
        w = random.uniform(15, 60)
        h = w * 2 / 3
        image = Pillow.new("RGB", (round(w * s), round(h * s)), (218, 37, 29))
        star = Pillow.new("L", image.size, 0)
        _star(ImageDraw.Draw(star), image.width / 2, image.height / 2, image.height * 0.32)
        image.paste((255, 230, 0), (0, 0), star)
        sheet.picture(np.asarray(image), *_place(random, w, h))
    elif kind == "photo":
        w, h = random.uniform(40, 120), random.uniform(30, 90)
        shape = (round(h * s), round(w * s))
        layers = [_field(random, shape, random.uniform(4, 25) * s) * 55 + random.uniform(60, 190) for _ in range(3)]
        layers[0] += random.uniform(0, 50)
        picture = np.clip(np.stack(layers, axis=2) + _field(random, shape, 1 * s)[:, :, None] * 12, 0, 255).astype(
            np.uint8
        )
        for _ in range(int(random.integers(0, 4))):  # balls, faces, wheels
            colour = tuple(int(v) for v in random.integers(30, 255, 3)) if random.random() < 0.5 else red
            centre = (int(random.uniform(0, shape[1])), int(random.uniform(0, shape[0])))
            cv2.circle(
                picture,
                centre,
                int(random.uniform(5, 22) * s),
                colour,
                -1 if random.random() < 0.6 else max(int(1.5 * s), 1),
                cv2.LINE_AA,
            )
        sheet.picture(picture, *_place(random, w, h))
    elif kind == "heading":
        for row in range(int(random.integers(1, 4))):
            sheet.text(
                f"{random.choice(AGENCIES)} {random.choice(PLACES)}",
                105,
                20 + row * 9 + random.uniform(0, 60),
                random.uniform(14, 26),
                bold=True,
                colour=red,
                centre=True,
            )
    elif kind == "circled":
        rx, ry = random.uniform(6, 28), random.uniform(5, 22)
        side = 2 * max(rx, ry) + 8
        t = np.linspace(0, 2 * np.pi * random.uniform(0.9, 1.25), 200)
        wobble = (
            1
            + 0.06 * np.sin(t * random.uniform(1, 3) + random.uniform(0, 6))
            + 0.04 * t / 6
            + 0.01 * np.cumsum(random.normal(0, 0.3, 200))
        )
        start = random.uniform(0, 6.3)
        points = (
            np.stack([side / 2 + rx * wobble * np.cos(t + start), side / 2 + ry * wobble * np.sin(t + start)], axis=1)
            * s
        )
        mask = np.zeros((round(side * s), round(side * s)), np.uint8)
        cv2.polylines(mask, [np.int32(points)], False, 255, max(round(random.uniform(0.3, 0.9) * s), 1), cv2.LINE_AA)
        if random.random() < 0.6:
            inside = stroke_mask(random, rx * 1.4, ry * 0.9, s)
            h, w = inside.shape
            oy, ox = (mask.shape[0] - h) // 2, (mask.shape[1] - w) // 2
            mask[oy : oy + h, ox : ox + w] = np.maximum(mask[oy : oy + h, ox : ox + w], inside)
        sheet.ink(
            (mask * random.uniform(0.5, 1)).astype(np.uint8),
            *_place(random, side, side),
            red if random.random() < 0.8 else (30, 50, 160),
        )
    elif kind == "chart":
        r = random.uniform(12, 26)
        side = int(2 * r * s)
        picture = Pillow.new("RGB", (side, side), (255, 255, 255))
        draw = ImageDraw.Draw(picture)
        at = random.uniform(0, 360)
        colours = [red, (60, 120, 200), (240, 170, 40), (90, 160, 70), (220, 90, 90), (150, 150, 150)]
        for i in range(int(random.integers(1, 6))):
            to = at + random.uniform(30, 200)
            draw.pieslice([1, 1, side - 2, side - 2], at, to, fill=colours[i], outline=(255, 255, 255))
            at = to
        if random.random() < 0.6:
            hole = side * random.uniform(0.15, 0.4)
            draw.ellipse([hole, hole, side - hole, side - hole], fill=(255, 255, 255))
        sheet.picture(np.asarray(picture), *_place(random, 2 * r, 2 * r))
    elif kind == "blue_stamp":
        _seal(sheet, inks, truth, random.uniform(30, 180), random.uniform(30, 265), other=True)
    elif kind == "clock":  # a dial: ring, ticks, hands; a lone circle; a target
        r = random.uniform(10, 23)
        image, draw = sheet.blank(2 * r, 2 * r)
        c = image.width / 2
        style = int(random.integers(0, 3))
        p = max(round(random.uniform(0.2, 1.2) * s), 1)
        draw.ellipse([1, 1, image.width - 2, image.height - 2], outline=255, width=p)
        if style == 0:
            for i in range(12):
                a = i * np.pi / 6
                draw.line(
                    [
                        c + c * 0.85 * np.cos(a),
                        c + c * 0.85 * np.sin(a),
                        c + c * 0.97 * np.cos(a),
                        c + c * 0.97 * np.sin(a),
                    ],
                    fill=255,
                    width=p,
                )
            for length in (0.5, 0.8):
                a = random.uniform(0, 6.3)
                draw.line([c, c, c + c * length * np.cos(a), c + c * length * np.sin(a)], fill=255, width=p)
        elif style == 1:
            draw.text((c, c), str(random.integers(1, 99)), fill=255, font=sheet.font(r * 2, True, 2), anchor="mm")
        sheet.ink(np.asarray(image), *_place(random, 2 * r, 2 * r), red)
    elif kind == "scribble":
        for _ in range(int(random.integers(1, 4))):
            w, h = random.uniform(10, 60), random.uniform(5, 25)
            sheet.ink(stroke_mask(random, w, h, s), *_place(random, w, h), red)


def add_frame(sheet: Sheet, inks: str, truth: Truth, value: str | None = None, *, red: bool = True) -> None:
    """A secrecy or urgency mark in the upper half of the page."""
    random = sheet.random
    value = value or str(random.choice(list(FRAMES)))
    kind, texts, width = FRAMES[value]
    mask, w, h = frame_mask(random, str(random.choice(texts)), width, sheet.scale, kind == "secrecy")
    stamped, _ = textured(random, mask, inks, sheet.scale)
    if random.random() < 0.3:
        stamped = mask
    stamped = np.maximum(
        stamped, (mask * random.uniform(0.2, 0.5)).astype(np.uint8)
    )  # a mark nobody can read is no mark
    angle = random.uniform(-6, 6) if random.random() < 0.7 else 0.0
    turned = _turned(stamped, angle)
    x, y = random.uniform(18, 75), random.uniform(42, 95)
    if random.random() < 0.15:
        x = random.uniform(18, 150)
    side = turned.shape[0] / sheet.scale
    sheet.ink(turned, x + w / 2 - side / 2, y + h / 2 - side / 2, _red(random) if red else (25, 25, 30))
    truth.frames.append((kind, value, x, y, x + w, y + h))


def scanned(sheet: Sheet, truth: Truth, dpi: int, mode: str) -> Scan:
    """Paper, scanner and file: tint, shadow, rotation, blur, noise, specks, JPEG."""
    random = sheet.random
    image = sheet.canvas
    h, w = image.shape[:2]
    paper = np.clip(255 - np.abs(random.normal(0, 9, 3)) - random.uniform(0, 10), 190, 255)
    if random.random() < 0.12:
        paper = paper * np.array(((1, 0.95, 0.85), (0.93, 0.96, 1), (1, 0.93, 0.94))[random.integers(0, 3)])
    angle = float(np.clip(random.normal(0, 0.8), -2.5, 2.5))
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), angle, random.uniform(0.975, 1.0))
    image = cv2.warpAffine(image, matrix, (w, h), flags=cv2.INTER_LINEAR, borderValue=(255, 255, 255))
    scale = sheet.scale
    zoom = float(np.hypot(matrix[0, 0], matrix[0, 1]))

    def moved(x: float, y: float) -> tuple[float, float]:
        px, py = matrix @ np.array([x * scale, y * scale, 1])
        return float(px / scale), float(py / scale)

    truth.seals = [(*moved(x, y), r * zoom) for x, y, r in truth.seals]
    truth.rings = [(*moved(x, y), r * zoom) for x, y, r in truth.rings]
    truth.frames = [(k, v, *moved(a, b), *moved(c, d)) for k, v, a, b, c, d in truth.frames]
    sigma = random.uniform(0.2, 0.9) * dpi / 150
    if sigma > 0.35:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    light = np.full((9, 7, 3), paper, np.float32)
    if random.random() < 0.35:  # a lid not shut, a photographed page
        light *= 1 - random.uniform(0.03, 0.22) * np.clip(_field(random, (9, 7), 5) * 0.5 + 0.5, 0, 1)[:, :, None]
    oy, ox = random.integers(0, 1024, 2)
    amount = random.uniform(0.5, 5.0)
    colour_share = random.uniform(0.3, 1.0)
    black = random.uniform(0, 25)
    # The scanner's contrast: paper burnt to white.
    burnt = random.uniform(1.03, 1.25) if random.random() < 0.4 else None
    image = _lit(image, light, (int(oy), int(ox)), amount, colour_share, black, burnt)
    for _ in range(int(random.integers(0, 30))):
        cv2.circle(
            image,
            (int(random.uniform(0, w)), int(random.uniform(0, h))),
            max(int(random.uniform(0.05, 0.3) * scale), 1),
            (60, 60, 60),
            -1,
        )
    if random.random() < 0.15:  # the lid's dark edge
        edge = int(random.uniform(0.5, 4) * scale)
        side = int(random.integers(0, 4))
        view = (image[:edge], image[-edge:], image[:, :edge], image[:, -edge:])[side]
        view[:] = view // 4 + 10
    if mode != "colour":
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if mode == "bilevel":
            if random.random() < 0.7:
                image = np.where(image > random.uniform(140, 210), 255, 0).astype(np.uint8)
            else:
                image = np.asarray(Pillow.fromarray(image).convert("1").convert("L"))
    return Scan(image, dpi, mode, truth, int(random.integers(40, 95)))


def page(seed: int, inks: str = "tuning", mode: str = "colour", dpi: int | None = None, wanted: str = "any") -> Scan:
    """One labelled page. wanted: `seal`, `none` (hard negatives, no seal), `crowded` (no seal, and many red
    things over each other), `seal crowded`, `any`; `frame` (a mark is there), `frameless` (none is)."""
    random = np.random.default_rng([seed, {"tuning": 1, "evaluation": 2, "development": 3, "mixed": 4}[inks]])
    if dpi is None:
        dpi = int(random.choice([100, 120, 150, 200, 240, 300], p=[0.26, 0.08, 0.24, 0.26, 0.06, 0.10]))
    sheet = Sheet(random, dpi)
    truth = Truth()
    _body(sheet, free=wanted == "frame" and random.random() < 0.75)
    with_seal = wanted in ("seal", "seal crowded") or (
        wanted in ("any", "frame", "frameless") and random.random() < 0.5
    )
    with_hand = random.random() < (0.6 if with_seal else 0.35)
    kinds = [k for k in NEGATIVES if not (wanted == "frameless" and k == "frame")]
    if wanted == "frame":  # what would lie over the mark itself is left out
        kinds = [k for k in kinds if k not in ("photo", "heading", "flag", "scribble")]
    count = int(random.choice([0, 1, 2, 3], p=[0.35, 0.35, 0.2, 0.1])) if with_seal else int(random.integers(1, 4))
    if wanted in ("crowded", "seal crowded"):
        count = int(random.integers(4, 8))
    chosen = list(random.choice(kinds, count, replace=False))
    if wanted == "frame" and "frame" not in chosen:
        chosen.append("frame")
    overlay = random.random() < 0.5
    if not overlay and (with_seal or random.random() < 0.5):
        _block(sheet, inks, truth, with_seal, with_hand)
    for kind in chosen:
        _negative(sheet, str(kind), inks, truth)
    if overlay and (with_seal or random.random() < 0.5):
        _block(sheet, inks, truth, with_seal, with_hand)
    return scanned(sheet, truth, dpi, mode)
