"""What readers raise for a picture that could be read, but not as it is meant."""


class UnreadForm(ValueError):
    """A picture is in a form that is not read as it is, and a conversion would lose something: that is for whoever asks.

    Attributes:
        form: what is wrong, without what to do in Python.
        obstacle: why `pictures.converted` does not know how; `None` where it does.
    """

    def __init__(self, form: str, remedy: str, obstacle: str | None = None, name: str | None = None):
        self.form, self.remedy, self.obstacle, self.name = form, remedy, obstacle, name
        super().__init__(f"{form} {remedy}")

    def about(self, name: str) -> "UnreadForm":
        """The same, said of what has this name; as it is where that is said already, by whoever knew first."""
        form = self.form if self.name is not None else f"{name}: {self.form}"
        return UnreadForm(form, self.remedy, self.obstacle, self.name or name)

    def __reduce__(self) -> tuple[type["UnreadForm"], tuple[str | None, ...]]:
        """As it is made, for errors that come from another process."""
        return UnreadForm, (self.form, self.remedy, self.obstacle, self.name)
