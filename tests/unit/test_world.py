from __future__ import annotations

from universal_registry.kernel.world import SystemWorld, ids_from


def test_ids_of_one_moment_begin_with_the_one_that_was_drawn_and_are_uuids_of_version_7() -> None:
    first = SystemWorld().new_id()
    ids = ids_from(first, 10_000)
    assert ids[0] == first
    assert len(set(ids)) == 10_000
    for each in ids:
        assert len(each) == 32
        assert each[:16] == first[:16], "the moment, the version and the bits before the variant stay"
        assert each[12] == "7"
        assert each[16] in "89ab"


def test_ids_of_one_moment_never_run_into_the_variant() -> None:
    full = "0" * 12 + "7fff" + "b" + "f" * 15
    ids = ids_from(full, 3)
    assert ids[0] == full
    assert [each[:16] for each in ids] == [full[:16]] * 3
    assert all(each[16] in "89ab" for each in ids)


def test_no_ids_are_none() -> None:
    assert ids_from("0" * 32, 0) == []
