import pytest

from purelm.config import config_file as loader
from purelm.config.arguments import prepare_arguments
from purelm.errors import UserError


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "my_config.py"
    path.write_text("")
    return path


def test_none_is_taken_out_and_whole_numbers_are_written_out(config_file):
    arguments = ["train.py", f"--config={config_file}:cpu", "--config.training.num_tokens=1e9",
                 "--config.training.num_steps=none", "--config.optimizer.learning_rate=1e-3", "--workdir=none",
                 "--noconfig.model.bias", "--", "--config.x=none"]
    kept, to_none = prepare_arguments(arguments)
    assert kept == ["train.py", f"--config={loader.__file__}:{config_file}:cpu",
                    "--config.training.num_tokens=1000000000", "--config.optimizer.learning_rate=1e-3",
                    "--workdir=none", "--noconfig.model.bias", "--", "--config.x=none"]
    assert to_none == [("training", "num_steps")]


@pytest.mark.parametrize("argument, said", [
    ("--config.model.num_layer=3", "did you mean 'num_layers'"),
    ("--config.modell.num_layers=3", "did you mean 'model'"),
    ("--config.training.learning_rate=3", "did you mean '--config.optimizer.learning_rate'"),
    ("--config.num_layers=3", "did you mean '--config.model.num_layers'"),
    ("--config.model=3", "is a section"),
    ("--config.sed=3", "did you mean 'seed'"),
    ("--config.model.width=none", "cannot be none"),
    ("--config.model.qqqq=1", "--help_config"),
])
def test_a_slip_is_named_with_what_would_be_right(argument, said):
    with pytest.raises(UserError) as error:
        prepare_arguments(["train.py", argument])
    assert said in str(error.value)


def test_a_missing_config_file_suggests_its_neighbor(config_file):
    with pytest.raises(UserError, match="did you mean '.*my_config.py'"):
        prepare_arguments(["train.py", f"--config={config_file.parent}/my_confg.py"])


@pytest.mark.parametrize("flag", [["--config={}"], ["--config", "{}"], ["-config", "{}"]])
def test_a_config_goes_through_our_own_loader_however_it_is_written(tmp_path, flag):
    (tmp_path / "config.json").write_text("{}")
    kept, _ = prepare_arguments(["train.py", *(part.format(tmp_path / "config.json") for part in flag)])
    assert kept == ["train.py", f"--config={loader.__file__}:{tmp_path}/config.json"]


def test_two_config_files_are_refused(config_file):
    with pytest.raises(UserError, match="given twice"):
        prepare_arguments(["train.py", f"--config={config_file}", f"--config={config_file}"])


def test_an_ablation_gives_its_base_as_the_config_and_stays_a_flag(tmp_path):
    path = tmp_path / "table.py"
    path.write_text("")
    kept, _ = prepare_arguments(["ablate.py", "--ablation", f"{path}:small", "--config.model.width=32"])
    assert kept == ["ablate.py", f"--config={loader.__file__}:{path}:small", f"--ablation={path}:small",
                    "--config.model.width=32"]


@pytest.mark.parametrize("arguments, said", [
    (["--ablation=nowhere.py"], "--ablation=nowhere.py: no file nowhere.py"),
    (["--ablation"], "--ablation: names no file"),
    (["--ablation={file}", "--config={file}"], "given twice"),
    (["--ablation={folder}/table.json"], "wants a Python file with get_ablation"),
])
def test_a_slip_of_an_ablation_is_named(arguments, said, config_file):
    (config_file.parent / "table.json").write_text("{}")
    with pytest.raises(UserError) as error:
        prepare_arguments(["ablate.py", *(a.format(file=config_file, folder=config_file.parent) for a in arguments)])
    assert said in str(error.value)


def test_the_base_of_an_ablation_is_a_config_file_of_its_own(tmp_path):
    from purelm.config import from_flag

    path = tmp_path / "table.py"
    path.write_text("import types\nfrom purelm.config import Config, TrainingConfig\n"
                    "def get_ablation(steps):\n"
                    "    return types.SimpleNamespace(base=Config(training=TrainingConfig(num_steps=int(steps))))\n")
    assert from_flag(loader.get_config(f"{path}:7")).training.num_steps == 7
    with pytest.raises(UserError, match=r"get_ablation\(steps\) there wants one"):
        loader.get_config(str(path))
