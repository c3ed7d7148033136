"""The sides of a picture to which pixels are added. It imports nothing, so that the command line may."""

SIDES = ("left", "top", "right", "bottom")
