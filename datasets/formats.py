"""Which picture formats are read, and by which suffixes they are found."""

from __future__ import annotations

from PIL import features

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000")
"""The only decoders of Pillow that see a file: all stay in this process. Its others include EPS, which runs
Ghostscript on a program found in the file, whatever the file is called."""

_OPTIONAL = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000", "TIFF": "libtiff"}
_SUFFIXES = {
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "PNG": ".png .apng",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "BMP": ".bmp",
    "DIB": ".dib",
    "WEBP": ".webp",
    "TIFF": ".tif .tiff",
    "GIF": ".gif",
    "AVIF": ".avif .avifs",
    "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
}


def _readable() -> tuple[str, ...]:
    # Pillow may be built without some libraries; a format it cannot read is then a suffix not read. Without
    # libtiff uncompressed TIFF is read all the same.
    lacking = {name for name, feature in _OPTIONAL.items() if not features.check(feature)} - {"TIFF"}
    return tuple(name for name in FORMATS if name not in lacking)


READ_FORMATS = _readable()
"""``FORMATS`` as far as the installed Pillow was built with their libraries."""

PICTURE_SUFFIXES = frozenset(suffix for name in READ_FORMATS for suffix in _SUFFIXES[name].split())
"""Lower case. The suffix says which files are pictures; the bytes alone say of which format they are."""

_OTHERS = """
.heic .heif .hif .jxl .jxr .wdp .svg .svgz .eps .epsf .ps .ai .pdf .psd .psb .xcf .tga .icb .vda .vst .qoi
.ico .cur .icns .pcx .dcx .sgi .rgb .rgba .bw .ras .sun .im .msp .pcd .pxr .dds .exr .hdr .fit .fits .fli
.flc .blp .ftc .ftu .gbr .wmf .emf .xbm .xpm .mng .jng .jp3d .jb2 .djvu .dcm .dng .cr2 .cr3 .crw .nef .nrw
.arw .srf .sr2 .raf .orf .rw2 .pef .raw .x3f .iiq .3fr .erf .mrw .rwl .srw
"""
UNREAD_SUFFIXES = frozenset(" ".join([*_SUFFIXES.values(), _OTHERS]).split()) - PICTURE_SUFFIXES
"""Pictures by their suffix, which are not read: reported, so that nobody misses them without a word."""
