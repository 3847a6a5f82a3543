"""The demos: train a ShiftWiseNet on real data, and show what it learned beside what costs nothing.

Five steps, each skipped when its result is there: fetch and convert the data set; measure an answer that looks at no
image; measure the untrained model; run ``mim train``; draw truths and predictions. ``demos/`` holds what differs by
task.

    python tools/demo.py                   # segmentation of land cover, about five minutes on two cores
    python tools/demo.py detection         # tree crowns
    python tools/demo.py classification    # tiles of land cover
    python tools/demo.py --force           # train again
    python tools/demo.py --source DIR      # data from files at hand, see dataset_converters/
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[1]
TASKS = ('segmentation', 'detection', 'classification')
OUTPUT = Path('work_dirs/demo')  # a folder for each task below; nothing else writes there, and a new run clears it


def step(title: str) -> None:
    print(f'\n=== {title}', flush=True)


def run(*command: str | Path) -> None:
    """Run a Python command line, its output passed on; a failure ends the demo."""
    if subprocess.run([sys.executable, *map(str, command)]).returncode:
        sys.exit(f'demo: {Path(command[0]).name} failed, see above')


# ------------------------------------------------------------------------------------------------ measuring


def score_of(task: ModuleType, metrics: dict) -> float:
    """Return the task's score in percent."""
    return round(float(metrics[task.METRIC]) * task.PERCENT, 2)


def constant_score(task: ModuleType, config) -> tuple[str, float]:
    """Measure an answer that is drawn from the training labels alone, with the evaluator that measures the model.

    Returns:
        What is answered, and the score in percent.
    """
    from mmengine.evaluator import Evaluator
    from mmengine.registry import DATASETS

    training = DATASETS.build({**config.train_dataloader.dataset, 'pipeline': config.test_pipeline})
    validation = DATASETS.build(config.val_dataloader.dataset)
    name, answer = task.constant_answer(training)
    evaluator = Evaluator(config.val_evaluator)
    evaluator.dataset_meta = validation.metainfo
    for item in validation:
        evaluator.process([answer(item['data_samples'])])
    return name, score_of(task, evaluator.evaluate(len(validation)))


def evaluate(task: ModuleType, config, checkpoint: Path | None, work_dir: Path):
    """Test a checkpoint, or the freshly initialised model, with mmengine's runner.

    Returns:
        The runner, with the model in it, and the score in percent.
    """
    from mmengine.runner import Runner

    config = config.copy()
    config.work_dir = str(work_dir)
    config.load_from = checkpoint and str(checkpoint)
    config.log_level = 'WARNING'  # training prints the config and the tables, once is enough
    runner = Runner.from_cfg(config)
    if checkpoint is None:
        runner.model.init_weights()
    return runner, score_of(task, runner.test())


def predict(runner, indices: list[int]) -> list:
    """Return (RGB image (H, W, 3) uint8, data sample with truth and prediction) of some validation images."""
    import torch
    from mmengine.dataset import pseudo_collate

    samples = []
    for index in indices:
        item = runner.test_dataloader.dataset[index]
        with torch.no_grad():
            (result,) = runner.model.test_step(pseudo_collate([item]))
        samples.append((item['inputs'].numpy()[::-1].transpose(1, 2, 0), result))  # (3, H, W) BGR
    return samples


# --------------------------------------------------------------------------------------------- command line


def measure(task: ModuleType, config, key: str, output: Path) -> dict:
    """Take steps 2 to 5. The result file is written last, so it stands for all of them."""
    from mmengine.registry import init_default_scope

    init_default_scope(task.LIBRARY)
    step('2/5 an answer without a look')
    constant, constant_result = constant_score(task, config)

    step('3/5 the untrained model')
    shutil.rmtree(output, ignore_errors=True)
    _, untrained_score = evaluate(task, config, None, output / 'untrained')

    step('4/5 training')
    work_dir = output / 'train'
    command = ['mim', 'train', task.LIBRARY, os.path.relpath(REPOSITORY / task.CONFIG), '--work-dir', str(work_dir)]
    print('$', *command, flush=True)
    start = time.monotonic()
    run('-m', *command)
    seconds = time.monotonic() - start

    step('5/5 the best checkpoint')
    (checkpoint,) = work_dir.glob('best_*.pth')
    runner, score = evaluate(task, config, checkpoint, output / 'best')
    dataset = runner.test_dataloader.dataset
    count = min(task.PICTURES, len(dataset))
    indices = [round(index * (len(dataset) - 1) / max(count - 1, 1)) for index in range(count)]
    task.picture(predict(runner, indices), dataset.metainfo).save(output / 'predictions.png')

    result = dict(
        key=key,
        constant_answer=constant,
        constant=constant_result,
        untrained=untrained_score,
        trained=score,
        checkpoint=str(checkpoint),
        training_seconds=round(seconds),
    )
    (output / 'result.json').write_text(json.dumps(result, indent=2) + '\n')
    return result


def report(task: ModuleType, result: dict, output: Path) -> None:
    rows = {
        result['constant_answer']: result['constant'],
        'the untrained model': result['untrained'],
        f'the best checkpoint of {result["training_seconds"]} s of training': result['trained'],
    }
    print(f'\n{task.MEASURED_ON}')
    for name, score in rows.items():
        print(f'  {name:48} {task.SCORE}: {score:5.2f}')
    print(f'checkpoint: {result["checkpoint"]}')
    print(f'picture:    {output / "predictions.png"}')


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('task', nargs='?', choices=TASKS, default=TASKS[0], help='default: %(default)s')
    parser.add_argument('--source', help='folder with the raw data, instead of a download')
    parser.add_argument('--force', action='store_true', help='train again even if a result is there')
    args = parser.parse_args(argv)
    # Threads that spin while they wait slow each other down as soon as two processes share the cores.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    task = import_module(f'demos.{args.task}')
    output = OUTPUT / args.task

    step('1/5 the data set')
    converter = REPOSITORY / 'tools' / 'dataset_converters' / f'{task.DATA.name}.py'
    run(converter, '--output', task.DATA, *(['--source', args.source] if args.source else []))

    from mmengine.config import Config

    config = Config.fromfile(REPOSITORY / task.CONFIG)
    key = hashlib.sha256((config.pretty_text + (task.DATA / 'stamp.json').read_text()).encode()).hexdigest()
    saved = output / 'result.json'
    result = json.loads(saved.read_text()) if saved.is_file() else {}
    if result.get('key') != key or args.force:
        result = measure(task, config, key, output)
    report(task, result, output)
    if result['trained'] < task.MUST_REACH:
        sys.exit(f'demo: the trained model should reach {task.MUST_REACH} {task.SCORE}; something is broken')


if __name__ == '__main__':
    main()
