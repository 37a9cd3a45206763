"""Names in text for people: one line, and nothing that steers a terminal."""

from caecnn_jax import names


def test_what_steers_a_terminal_is_escaped():
    red = names.printable("a \x1b[31mred\x07\r\ncat, Bär\u202f3, b\udce4r")
    assert red == "a \\x1b[31mred\\x07\\r\ncat, Bär\u202f3, b\\udce4r"
    assert names.printable("two\nlines", kept="") == "two\\nlines"


def test_a_long_name_keeps_both_ends_in_one_line():
    assert names.short("short") == "short"
    assert names.short("Ailuropoda melanoleuca\n(giant panda)", 20) == "Ailuropoda…nt panda)"
    assert len(names.short("x" * 200)) == 40
    assert names.short("\x1b[31mcat\x1b[0m") == "\\x1b[31mcat\\x1b[0m"
