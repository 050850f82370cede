"""Pages for people, written here and only made lively by the browser.

`press` fills the templates in, `sheet` keeps what was written in pieces, and each of
the others knows what one part of a page says.
"""
