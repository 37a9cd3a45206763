"""Three kills of the real program; tests/stress/kill_resume.py makes as many as asked for."""

import pytest
from builders import prepared_data_dir
from stress import kill_resume


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not prepared_data_dir(), reason="no prepared CIFAR-10")
def test_a_run_killed_three_times_ends_as_one_left_alone(tmp_path, capsys):
    assert kill_resume.main(["--kills", "3", "--seed", "1", "--workdir", str(tmp_path)]) == 0
    assert "kills 3, restarts 3, experiments" in capsys.readouterr().out
