"""The README's own task, taken from the README, trains and is evaluated."""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_the_task_of_the_readme_runs(tmp_path):
    code = next(block for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
                if "def loss_sums" in block)
    (tmp_path / "my_tasks").mkdir()
    (tmp_path / "my_tasks" / "rating.py").write_text(code)
    (tmp_path / "films").mkdir()
    rows = [{"text": f"a {word} film number {number}", "rating": stars} for number in range(20)
            for word, stars in (("good", 9), ("bad", 2))]
    for split in ("train", "validation"):
        (tmp_path / "films" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = ["--config.model.num_layers=1", "--config.model.width=16", "--config.model.num_heads=2",
             "--config.model.context_length=16", "--config.data.tokenizer_vocabulary_size=40",
             "--config.training.batch_size=8", "--config.training.num_epochs=30",
             "--config.training.evaluate_every=20%", "--config.training.checkpoint_every=50%",
             "--config.optimizer.learning_rate=1e-2"]
    train = [sys.executable, str(ROOT / "experiments/train.py"), "--workdir=stars",
             f"--config={ROOT}/configs/classification/transformer.py:imdb", "--config.data.path=films",
             "--config.task.name=my_tasks.rating", "--config.model.num_classes=11", *small]
    done = subprocess.run(train, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    evaluate = [sys.executable, str(ROOT / "experiments/evaluate.py"), "--workdir=stars"]
    done = subprocess.run(evaluate, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["loss"] < 3.0  # 12.25 is what the mean rating loses.
    wrong = subprocess.run([*train, "--config.task.name=my_tasks.ratng", "--workdir=new"], cwd=tmp_path,
                           capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2 and "there is no module my_tasks.ratng" in wrong.stderr
