import pytest

from hllm.cli.options import column_list, comma_list, dimension_list, number_list, one_of, part_of
from hllm.errors import ConfigError


def test_empty_parts_of_a_list_are_dropped():
    assert comma_list(" a, b c,,") == ["a", "b c"]
    assert comma_list("") == []


def test_an_empty_column_name_stays_so_that_it_is_refused():
    assert column_list("title,,kind") == ["title", "", "kind"]
    assert column_list(None) is None


def test_dimensions_are_ascending_and_the_whole_vectors_need_no_number():
    assert dimension_list("64,full,32,64") == [32, 64]
    with pytest.raises(ConfigError, match=r"--dims has '0'; expected sizes such as 32,64,128"):
        dimension_list("32,0")


def test_a_wrong_value_is_answered_with_what_was_expected():
    with pytest.raises(ConfigError, match=r"--times is 'noon'; expected seconds"):
        number_list("--times", "noon", expected="seconds")
    with pytest.raises(ConfigError, match=r"--kind is 'exat' \(did you mean 'exact'\?\); expected one of exact, flat"):
        one_of("--kind", "exat", ("exact", "flat"))
    with pytest.raises(ConfigError, match=r"--part is 'train'; expected \"test\" or \"validation\""):
        part_of("train")
