def test_two_runs_of_one_name_are_refused(hllm, trained_folder, tmp_path):
    code, _, err = hllm("evaluate", "--run", trained_folder, "--against", trained_folder)
    assert code == 2
    assert "two runs are named 'trained'; a table needs names that differ" in err
