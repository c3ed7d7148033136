"""Errors as a command tells them: with what to do on a command line."""


def sentence_of(error: BaseException) -> str:
    """What to say of an error; of a form that no picture is read in (`unread_form.UnreadForm`) without advice for Python."""
    form = getattr(error, "form", None)
    if form is None:
        return str(error)
    if error.obstacle is None:
        return f"{form} --convert reads such pictures in 8 bits, as RGB or gray."
    return f"{form} {error.obstacle}: save it as PNG of 8 bits with a program that knows."
