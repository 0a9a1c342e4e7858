"""What clients send and get: the types of the digit services, whichever model answers."""

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field

if TYPE_CHECKING:
    from numpy import ndarray

PIXELS = 64
MOST_ROWS = 1_000

Pixel = Annotated[float, Field(strict=True, ge=0, le=16, allow_inf_nan=False)]
# FailFast: the first mistake is reported; a body of 64,000 mistakes must not become 64,000 messages.
Row = Annotated[list[Pixel], Field(min_length=PIXELS, max_length=PIXELS), FailFast()]


class DigitsRequest(BaseModel):
    """`rows`: 1 to 1,000 images of 8 x 8 pixels, row by row, each pixel a number in 0..16."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rows: Annotated[list[Row], Field(min_length=1, max_length=MOST_ROWS), FailFast()]


class DigitsAnswer(BaseModel):
    """For each row the likeliest digit, and the probability of each digit 0..9."""

    classes: list[int]
    probabilities: list[list[float]]

    @classmethod
    def of(cls, probabilities: "ndarray") -> Self:
        """The answer that says `probabilities`, an array of (row, digit)."""
        return cls.model_construct(classes=probabilities.argmax(axis=1).tolist(), probabilities=probabilities.tolist())
