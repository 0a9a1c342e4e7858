"""However a Bento of `digits` is served, it gives the same answers, and they are those of the golden file."""

from pathlib import Path

from bentos.digits.recipe import RECIPE
from tests.e2e import golden
from tests.e2e.serving import answers, pack, three_ways


def test_answers_are_the_same_bit_for_bit_however_they_are_served_and_as_the_golden_file_has_them(
    tmp_path: Path,
) -> None:
    params = RECIPE.with_params({})
    split = RECIPE.data(params)
    (tmp_path / "files").mkdir()
    RECIPE.save(RECIPE.train(split, params), split, tmp_path / "files")
    packed = pack(tmp_path, "digits", tmp_path / "files")
    with three_ways(packed, "service.digits:Digits", "digits:v1") as servers:
        served = {answers(server, golden.images()) for server in servers.values()}
    assert len(served) == 1
    golden.check("digits", served.pop())
