"""A table's file is loaded, and what is wrong with it is named with its line."""

import pathlib

import pytest

from purelm.ablation import load
from purelm.ablation.check import check
from purelm.errors import UserError

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs" / "ablations"
TABLE = """from purelm.ablation.spec import *
from purelm.config import *
def get_ablation(width{default}):
    return Ablation("t", "s", Config(training=TrainingConfig(num_steps=2)), (Row("a", {{"model.width": int(width)}}),),
                    (Metric("validation/loss", "loss", "lower"),))
"""


def test_the_argument_after_the_colon_is_the_function_s(tmp_path):
    path = tmp_path / "table.py"
    path.write_text(TABLE.format(default="=64"))
    assert load.load_ablation(str(path)).rows[0].changes == {"model.width": 64}
    assert load.load_ablation(f"{path}:96").rows[0].changes == {"model.width": 96}
    path.write_text(TABLE.format(default=""))
    with pytest.raises(UserError, match=r"get_ablation\(width\) there wants one"):
        load.load_ablation(str(path))


@pytest.mark.parametrize("text, said", [
    ("x = 1\n", "table.py: has no function get_ablation()"),
    ("def get_ablation():\n    return 3\n", "table.py: get_ablation() returned int; return Ablation(...)"),
    ("x = 1\nx.y\n", "table.py:2: AttributeError"),
    ("x = (\n", "table.py:1: "),
    ("from purelm.ablation.spec import Row\ndef get_ablation():\n    return Row('a', chnges={})\n",
     "table.py:3: TypeError: Row.__init__() got an unexpected keyword argument 'chnges'"),
])
def test_what_is_wrong_with_the_file_is_named(text, said, tmp_path):
    (tmp_path / "table.py").write_text(text)
    with pytest.raises(UserError) as error:
        load.load_ablation(str(tmp_path / "table.py"))
    assert said in str(error.value) and str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.name)
def test_every_table_of_configs_passes_the_check(path):
    check(load.load_ablation(str(path)), path.name)
