"""What pgbreaker raises, one base for all of it."""


class PgbreakerError(Exception):
    """Anything that pgbreaker itself complains about."""


class ConfigError(PgbreakerError):
    """The configuration cannot be used.

    Attributes:
        problems: One line each, ``file:line:column: what is wrong``, in the
            order of the file. Never holds a secret.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)
