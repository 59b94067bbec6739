"""Numbers are written alike everywhere."""

from __future__ import annotations

from pretrain_cli.formatting import byte_size, clock, count, count_of, duration, exact, percent, rate, score, step_time


def test_counts_have_comma_separators_and_large_ones_a_suffix() -> None:
    assert [count(4321), count(12_345_678), count(1.5e9)] == ["4,321", "12.3M", "1.5B"]
    assert exact(12_345_678) == "12,345,678"


def test_a_noun_agrees_with_its_count() -> None:
    assert [count_of(1, "row"), count_of(0, "row"), count_of(4321, "row")] == ["1 row", "0 rows", "4,321 rows"]
    assert count_of(2, "process", "processes") == "2 processes"


def test_bytes_and_times_have_units() -> None:
    assert [byte_size(412), byte_size(412_000), byte_size(10_761_624)] == ["412 B", "412 kB", "10.8 MB"]
    assert [byte_size(123e6), byte_size(2.5e12)] == ["123 MB", "2.5 TB"]
    assert [duration(0.84), duration(42), duration(185), duration(7800)] == ["0.8 s", "42 s", "3:05 min", "2:10 h"]
    assert [duration(9.97), duration(59.7)] == ["10 s", "1:00 min"]
    assert [step_time(seconds) for seconds in (0.000253, 0.148, 0.9996, 1.826, 15.7)] == [
        *("0.253 ms", "148 ms", "1 s", "1.83 s", "16 s")
    ]
    assert [clock(67), clock(7500)] == ["1:07", "2:05:00"]
    assert [rate(8123, "tokens"), rate(12.3e6, "bytes")] == ["8,123 tokens/s", "12.3 MB/s"]


def test_shares_and_losses_have_fixed_digits() -> None:
    assert [percent(0.05), percent(0.9987, 2)] == ["5%", "99.87%"]
    assert [score(3.14159), score(3.4e19), score(None, "not measured")] == ["3.142", "3.4e+19", "not measured"]
