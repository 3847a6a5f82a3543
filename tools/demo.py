"""The demo: train a ShiftWiseNet on real data, and show what it learned beside what costs nothing.

Five steps, each skipped when its result is there: fetch and convert the land-cover data set; measure the answer
"majority class everywhere"; measure the untrained model; run ``mim train mmseg``; draw images, truths and predictions.

    python tools/demo.py                 # about five minutes on two cores
    python tools/demo.py --force         # train again
    python tools/demo.py --source DIR    # data from files at hand, see dataset_converters/landcover.py
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from dataset_converters import landcover
from PIL import Image, ImageDraw, ImageFont

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'demo' / 'upernet_sw_landcover.py'
DATA = Path('data/landcover')  # where the config looks for it, from the current folder
OUTPUT = Path('work_dirs/demo')  # nothing else writes here; a new run clears it
WORK_DIR = OUTPUT / 'train'
MUST_REACH = 10.0  # mIoU in percent; less means that something is broken
PICTURES = 8


def step(title: str) -> None:
    print(f'\n=== {title}', flush=True)


# ------------------------------------------------------------------------------------------------ measuring


def majority_miou(training: list[np.ndarray], validation: list[np.ndarray], metainfo: dict) -> tuple[int, float]:
    """Find the most frequent class of the training labels, and the mIoU of answering it everywhere.

    Args:
        training: Label maps, 255 where not labelled.
        validation: The same, to be answered.
        metainfo: The data set's, with `classes`.

    Returns:
        The class, and mmseg's mIoU in percent: the mean over the classes that occur.
    """
    import torch
    from mmseg.evaluation import IoUMetric

    num_classes = len(metainfo['classes'])
    counts = sum(np.bincount(labels.ravel(), minlength=256)[:num_classes] for labels in training)
    majority = int(np.argmax(counts))
    metric = IoUMetric()
    metric.dataset_meta = metainfo
    for labels in map(torch.from_numpy, validation):
        answer = torch.full_like(labels, majority)
        metric.process({}, [{'pred_sem_seg': {'data': answer}, 'gt_sem_seg': {'data': labels}}])
    return majority, round(float(metric.evaluate(len(validation))['mIoU']), 2)


def labels_of(dataset) -> list[np.ndarray]:
    """Return a mmseg data set's label maps as training and evaluation see them."""
    return [item['data_samples'].gt_sem_seg.data.numpy().astype(np.int64) for item in dataset]


def evaluate(config, checkpoint: Path | None, work_dir: Path):
    """Test a checkpoint, or the freshly initialised model, with mmengine's runner.

    Returns:
        The runner, with the model in it, and the mIoU in percent.
    """
    from mmengine.runner import Runner

    config = config.copy()
    config.work_dir = str(work_dir)
    config.load_from = checkpoint and str(checkpoint)
    config.log_level = 'WARNING'  # training prints the config and the class table, once is enough
    runner = Runner.from_cfg(config)
    if checkpoint is None:
        runner.model.init_weights()
    return runner, round(float(runner.test()['mIoU']), 2)


def predict(runner, indices: list[int]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return (RGB image, truth, prediction) of some validation tiles."""
    import torch
    from mmengine.dataset import pseudo_collate

    samples = []
    for index in indices:
        item = runner.test_dataloader.dataset[index]
        with torch.no_grad():
            (result,) = runner.model.test_step(pseudo_collate([item]))
        image = item['inputs'].numpy()[::-1].transpose(1, 2, 0)  # (3, H, W) BGR -> (H, W, 3) RGB
        maps = (getattr(result, name).data.squeeze(0).cpu().numpy() for name in ('gt_sem_seg', 'pred_sem_seg'))
        samples.append((image, *maps))
    return samples


# -------------------------------------------------------------------------------------------------- drawing


def picture_grid(
    samples: list[tuple[np.ndarray, np.ndarray, np.ndarray]], metainfo: dict, per_row: int = 2, scale: int = 2
) -> Image.Image:
    """Draw (image, truth, prediction) triples in rows, with titles above and a legend below.

    Args:
        samples: RGB image (H, W, 3) uint8, truth and prediction (H, W), all of one size.
        metainfo: The data set's, with `classes` and `palette`. Labels beyond the classes are drawn black.
        per_row: Triples side by side.
        scale: Pixels of the picture for each pixel of a sample.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(metainfo['palette'])] = metainfo['palette']
    height, width = (side * scale for side in samples[0][1].shape)
    gap, line, legend_columns = 4, 22, 4
    rows = -(-len(samples) // per_row)
    legend_rows = -(-len(metainfo['classes']) // legend_columns)
    full_width = per_row * 3 * (width + gap) - gap
    bottom = line + rows * (height + gap)
    picture = Image.new('RGB', (full_width, bottom + legend_rows * line + gap), 'white')
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)

    for column in range(per_row * 3):
        title = ('image', 'truth', 'prediction')[column % 3]
        draw.text((column * (width + gap) + 2, 2), title, 'black', font)
    for number, (image, truth, prediction) in enumerate(samples):
        row, first = divmod(number, per_row)
        for offset, tile in enumerate((image, palette[truth], palette[prediction])):
            position = ((first * 3 + offset) * (width + gap), line + row * (height + gap))
            picture.paste(Image.fromarray(np.ascontiguousarray(tile)).resize((width, height), 0), position)
    for number, name in enumerate(metainfo['classes']):
        column, row = divmod(number, legend_rows)
        x, y = column * full_width // legend_columns, bottom + row * line + gap
        draw.rectangle((x, y, x + 16, y + 14), tuple(metainfo['palette'][number]), 'black')
        draw.text((x + 22, y - 2), name, 'black', font)
    return picture


# --------------------------------------------------------------------------------------------- command line


def train() -> None:
    """Run the command that the demo is about, its output passed on."""
    command = ['mim', 'train', 'mmseg', os.path.relpath(CONFIG), '--work-dir', str(WORK_DIR)]
    print('$', *command, flush=True)
    if subprocess.run([sys.executable, '-m', *command]).returncode:
        sys.exit('demo: training failed, see above')


def measure(config, key: str) -> dict:
    """Take steps 2 to 5. The result file is written last, so it stands for all of them."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    step('2/5 the majority class')
    validation = DATASETS.build(config.val_dataloader.dataset)
    training = DATASETS.build({**config.train_dataloader.dataset, 'pipeline': config.test_pipeline})
    majority, majority_score = majority_miou(labels_of(training), labels_of(validation), validation.metainfo)

    step('3/5 the untrained model')
    shutil.rmtree(OUTPUT, ignore_errors=True)
    _, untrained_score = evaluate(config, None, OUTPUT / 'untrained')

    step('4/5 training')
    start = time.monotonic()
    train()
    seconds = time.monotonic() - start

    step('5/5 the best checkpoint')
    (checkpoint,) = WORK_DIR.glob('best_mIoU_iter_*.pth')
    runner, score = evaluate(config, checkpoint, OUTPUT / 'best')
    indices = np.linspace(0, len(validation) - 1, PICTURES).round().astype(int).tolist()
    picture_grid(predict(runner, indices), validation.metainfo).save(OUTPUT / 'predictions.png')

    result = dict(
        key=key,
        tiles=len(validation),
        classes=len(validation.metainfo['classes']),
        majority_class=validation.metainfo['classes'][majority],
        majority=majority_score,
        untrained=untrained_score,
        trained=score,
        checkpoint=str(checkpoint),
        training_seconds=round(seconds),
    )
    (OUTPUT / 'result.json').write_text(json.dumps(result, indent=2) + '\n')
    return result


def report(result: dict) -> None:
    rows = {
        f'"{result["majority_class"]}" everywhere, the majority class': result['majority'],
        'the untrained model': result['untrained'],
        f'the best checkpoint of {result["training_seconds"]} s of training': result['trained'],
    }
    print(f'\n{result["tiles"]} validation tiles, mean over the {result["classes"]} classes')
    for name, score in rows.items():
        print(f'  {name:48} mIoU: {score:5.2f}')
    print(f'checkpoint: {result["checkpoint"]}')
    print(f'picture:    {OUTPUT / "predictions.png"}')


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--source', help='folder with the raw data, instead of a download')
    parser.add_argument('--force', action='store_true', help='train again even if a result is there')
    args = parser.parse_args(argv)
    # Threads that spin while they wait slow each other down as soon as two processes share the cores.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

    step('1/5 the data set')
    landcover.main(['--output', str(DATA)] + (['--source', args.source] if args.source else []))

    from mmengine.config import Config

    config = Config.fromfile(CONFIG)
    key = hashlib.sha256((config.pretty_text + (DATA / 'stamp.json').read_text()).encode()).hexdigest()
    saved = OUTPUT / 'result.json'
    result = json.loads(saved.read_text()) if saved.is_file() else {}
    if result.get('key') != key or args.force:
        result = measure(config, key)
    report(result)
    if result['trained'] < MUST_REACH:
        sys.exit(f'demo: the trained model should reach an mIoU of {MUST_REACH}; something is broken')


if __name__ == '__main__':
    main()
