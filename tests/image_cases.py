"""Image files as people have them: what the tests of reading and of predicting share."""

from PIL import Image

RED, BLUE = (200, 30, 40), (20, 60, 210)


def halves(size=(80, 60)):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def damaged_files(folder):
    """Files that must not be read, by name, with a part of what is said of each."""
    halves().save(folder / "whole.jpg", quality=95)
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) - 100])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.webp").write_text("no image")
    Image.new("1", (9600, 9600)).save(folder / "bomb.png")
    return {
        "cut.jpg": "truncated",
        "empty.png": "not a PNG",
        "text.webp": "not a PNG",
        "bomb.png": "decompression bomb",
        "missing.png": "no such file",
    }
