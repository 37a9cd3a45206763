"""Names in text for people: one line, and nothing that steers a terminal."""

from caecnn_jax import legible


def test_what_steers_a_terminal_is_escaped():
    red = legible.printable("a \x1b[31mred\x07\r\ncat, Bär\u202f3, b\udce4r")
    assert red == "a \\x1b[31mred\\x07\\r\ncat, Bär\u202f3, b\\udce4r"
    assert legible.printable("two\nlines", kept="") == "two\\nlines"


def test_a_long_name_keeps_both_ends_in_one_line():
    assert legible.short("short") == "short"
    assert legible.short("Ailuropoda melanoleuca\n(giant panda)", 20) == "Ailuropoda…nt panda)"
    assert len(legible.short("x" * 200)) == 40
    assert legible.short("\x1b[31mcat\x1b[0m") == "\\x1b[31mcat\\x1b[0m"
