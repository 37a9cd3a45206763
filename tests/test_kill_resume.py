"""A few kills of the real program; tests/stress/kill_resume.py makes as many as asked for."""

import pytest
from builders import prepared_data_dir
from stress import kill_resume

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_data,
    pytest.mark.skipif(not prepared_data_dir(), reason="no prepared CIFAR-10"),
]


@pytest.mark.parametrize(("kills", "devices"), [(3, 1), (2, 4)])
def test_a_killed_run_ends_as_one_left_alone(tmp_path, capsys, kills, devices):
    options = {"kills": kills, "devices": devices, "seed": 1, "workdir": tmp_path}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    assert kill_resume.main(arguments) == 0
    assert f"kills {kills}, restarts {kills}, experiments" in capsys.readouterr().out
