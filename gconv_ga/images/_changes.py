"""Random changes of training crops: the kinds there are, and how large they become. Imports nothing heavy."""

from dataclasses import dataclass, fields

from .._validate import invalid


@dataclass(frozen=True)
class Changes:
    """Largest random changes of training crops, in the units of normalized images.

    A normalized image has mean zero and standard deviation one in each channel over the training images, so one choice
    is as strong for 8 bits as for 16, for grey images as for seven channels.

    Args:
        color: Largest rotation of the hue in degrees, and largest change of the saturation in hundredths. For images of
            three channels, which are taken as red, green and blue; others stay as they are.
        contrast: Each channel is multiplied by a factor up to ``1 + contrast``, or down to its inverse, and shifted by
            up to ``contrast`` standard deviations.
        scale: Objects become larger by a factor up to ``1 + scale``, or smaller down to its inverse: a smaller or
            larger window of the image is resized to a crop.
        blur: Largest standard deviation of a Gaussian blur, in pixels.
        noise: Largest standard deviation of Gaussian noise.
        elastic: Standard deviation of the displacement of points 32 pixels apart, in pixels.

    Raises:
        ValueError: A number is negative.

    Example:
        >>> from gconv_ga.images import Changes
        >>> Changes.named("light")
        Changes(color=10.0, contrast=0.15, scale=0.25, blur=1.0, noise=0.1, elastic=2.0)
        >>> Changes.named("strong,scale,noise")
        Changes(color=0.0, contrast=0.0, scale=0.6, blur=0.0, noise=0.25, elastic=0.0)
        >>> Changes.named("none") == Changes()
        True
    """

    color: float = 0.0
    contrast: float = 0.0
    scale: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    elastic: float = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            if not getattr(self, each.name) >= 0:
                raise invalid(each.name, "at least 0", getattr(self, each.name))

    @classmethod
    def named(cls, text: str) -> "Changes":
        """Return the changes that a word or a list of words names.

        Args:
            text: "none"; "light" or "strong" for all kinds; or kinds separated by commas, which are light unless one of
                the words is "strong".

        Raises:
            ValueError: A word is none of these, or occurs twice.
        """
        words = [word.strip() for word in text.split(",")]
        kinds = [word for word in words if word not in STRENGTHS]
        known = [each.name for each in fields(cls)]
        takes = f"none, light, strong, or kinds among {', '.join(known)}, separated by commas"
        if words == ["none"]:
            return cls()
        if len(set(words)) < len(words) or len(words) - len(kinds) > 1 or not set(kinds) <= set(known):
            raise invalid("augment", takes, text, "strong,scale,noise makes these two stronger")
        largest = STRENGTHS["strong" if "strong" in words else "light"]
        return cls(**{name: getattr(largest, name) for name in kinds or known})


STRENGTHS = {
    "light": Changes(color=10.0, contrast=0.15, scale=0.25, blur=1.0, noise=0.1, elastic=2.0),
    "strong": Changes(color=25.0, contrast=0.4, scale=0.6, blur=2.0, noise=0.25, elastic=4.0),
}
