"""What other programs ask, and change: JSON below ``/api/v1``, and a stream of events.

routes    the addresses            asked     what a question says, or what is wrong with it
orders    what changes something   civil     errors that one asked for, as answers
history   events, incidents        tables    the same as CSV and Markdown
timeline  states over time         changes   what has moved, for those who wait for it
stream    as it happens            document  the description, of `schemas`
"""
